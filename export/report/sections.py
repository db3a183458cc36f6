"""Write the sections of a page about one image."""

from __future__ import annotations

from darsr_train.plots.page import to_rgb

from .charts import Bar, bars, curve_svg
from .drawings import filters_svg, kernel_svg, kernel_svgs, map_svg
from .explain import NAMES, candidates, chosen_candidate, facts_table, kernel_words, why
from .markup import Markup, element, joined
from .pictures import Album, album, uri
from .subject import Place, Subject, places

_CROP = 88  # side of a close-up in HR pixels
_SHOWN = 256  # least length of its longer side on the page
_LEFT, _RIGHT = ("bicubic", "backbone"), ("adapted", "truth")
_PHASES = {"adapting": "Loss of the fit", "degradation score": "Loss of the degradation score"}


def image_section(subject: Subject, key: str, budget: int, alone: bool = False) -> Markup:
    """Write the section of one image.

    Args:
        key: identifies the section in the page.
        budget: bytes that the large pictures may take.
        alone: whether the page's heading names the image already.
    """
    shown = subject.distinct_pictures()
    pictures = album({"backbone": shown["backbone"]} if subject.unchanged else shown, budget)
    found = places(subject.pictures, _CROP)
    height, width = subject.lr_size
    scale = subject.adapter.scale
    remark = f"{width} × {height} px, enlarged {scale} times through {subject.adapter.backbone}"
    if not subject.whole:
        rows, columns = shown["backbone"].shape[:2]
        remark += f"; the page shows its middle, {columns} × {rows} of {width * scale} × {height * scale}"
    title = element("h2", subject.image.name, class_="unseen" if alone else None, id=f"{key}-title")
    nothing = "Nothing was corrected: the result is that of the backbone alone."
    head = element(
        "header",
        title,
        element("p", remark, class_="remark"),
        element("p", nothing, class_="nothing") if subject.unchanged else None,
    )
    compared = [_viewer(subject, pictures, found["most detail"], key), _scores(subject) if subject.scores else None]
    tall = subject.pictures["adapted"].shape[0] > subject.pictures["adapted"].shape[1] and subject.scores
    parts = [head, element("div", joined(*compared), class_="compared beside" if tall else "compared")]
    parts += [_close_ups(subject, name, place) for name, place in found.items()]
    cards = joined(_chosen(subject), *_curves(subject), _kernel(subject), *_filters(subject))
    parts.append(element("div", cards, class_="cards"))
    listed = [
        element("dt", name) + element("dd", value) for name, value in facts_table(subject.adapter, subject.lr_size)
    ]
    facts = element("dl", Markup("".join(listed)), class_="facts")
    parts.append(element("details", element("summary", "Facts of the adapter"), facts))
    return element("section", joined(*parts), id=key, class_="image", aria_labelledby=f"{key}-title")


def _viewer(subject: Subject, pictures: Album, detail: Place, key: str) -> Markup:
    """Stack the pictures with a divider to drag between two of them; viewer.js moves it and zooms. A single one has none."""
    height, width = subject.pictures["adapted"].shape[:2]
    alone = len(pictures.uris) == 1
    images = []
    for name, source in pictures.uris.items():
        words = f"{NAMES[name]}: {subject.image.name}"
        size = {"width": width, "height": height}
        layer = "layer shown" if alone else "layer"
        images.append(element("img", src=source, **size, alt=words, data_name=name, class_=layer, draggable="false"))
    divider = element("input", type="range", min=0, max=1000, value=500, step=10, class_="divider",
                      aria_label="Divider between the two pictures")  # fmt: skip
    tags = [element("span", "", class_=f"tag {side}", aria_hidden="true") for side in ("left", "right")]
    between = [] if alone else [*tags, element("span", class_="line", aria_hidden="true"), divider]
    moved = "the picture" if alone else "the divider, or the picture"
    words = f"{'Picture' if alone else 'Comparison'}. Arrow keys move {moved} once it is enlarged; "
    stage = element("div", joined(*images, *between), class_="stage alone" if alone else "stage", tabindex=0, role="group",
                    aria_label=f"{words}plus and minus enlarge and reduce, 0 shows it whole.")  # fmt: skip
    zoom = element("div",
                   element("button", "−", type="button", data_do="out", aria_label="Reduce"),
                   element("output", "", class_="zoom", aria_live="polite"),
                   element("button", "+", type="button", data_do="in", aria_label="Enlarge"),
                   element("button", "Whole", type="button", data_do="whole"),
                   element("button", "Detail", type="button", data_do="detail"),
                   class_="buttons", role="group", aria_label="Zoom")  # fmt: skip
    sides = [] if alone else [("left", _LEFT, "backbone"), ("right", _RIGHT, "adapted")]
    choices = [
        _choice(side, [name for name in names if name in pictures.uris], selected, key)
        for side, names, selected in sides
    ]
    note = element("p", f"Real pixels, {pictures.how()}. ", element("span", class_="scale-note"), class_="remark")
    return element(
        "div",
        element("div", *choices, zoom, class_="controls"),
        stage,
        note,
        class_="viewer",
        data_width=width,
        data_height=height,
        data_detail=f"{(detail[1].start + detail[1].stop) / 2},{(detail[0].start + detail[0].stop) / 2}",
    )


def _choice(side: str, names: list[str], selected: str, key: str) -> Markup:
    options = [
        element(
            "label",
            element("input", type="radio", name=f"{key}-{side}", value=name, checked=name == selected, data_side=side),
            element("span", NAMES[name]),
        )
        for name in names
    ]
    return element("fieldset", element("legend", side.capitalize()), joined(*options), class_="choice")


def _scores(subject: Subject) -> Markup:
    """Draw the figures against the truth, by which nothing was chosen."""
    gain = subject.scores["adapted"]["psnr_y"] - subject.scores["backbone"]["psnr_y"]
    items = [
        Bar(NAMES[name], row["psnr_y"], f"{row['psnr_y']:.2f} dB", note=f"SSIM {row['ssim_y']:.3f}", kind=name)
        for name, row in subject.scores.items()
    ]
    finite = [item for item in items if item.value != float("inf")]
    start = max(0.0, min((item.value for item in finite), default=0.0) - 3)
    big = element("p", element("b", f"{gain:+.2f} dB"), " over the backbone alone", class_="gain")
    caption = (
        f"Y-PSNR against the truth, {subject.adapter.scale} px at the border left out; bars begin at {start:.1f} dB. "
    )
    caption += "The truth was compared with; nothing was chosen by it."
    chart = bars(finite, "Y-PSNR against the truth", start)
    return element("figure", big, chart, element("figcaption", caption), class_="card wide scores")


def _close_ups(subject: Subject, name: str, place: Place) -> Markup:
    """Show the same crop of every picture, always lossless."""
    titles = {
        "most detail": "Where there is most detail",
        "changed most": "Where adapting changes most",
    }
    rows, columns = place
    size = columns.stop - columns.start, rows.stop - rows.start
    zoom = -(-_SHOWN // max(size))
    panels = []
    for picture, pixels in subject.distinct_pictures().items():
        image = element("img", src=uri(to_rgb(pixels[place])), width=size[0] * zoom, height=size[1] * zoom, class_="pixels",
                        alt=f"{NAMES[picture]}, close-up", data_pixels=size[0])  # fmt: skip
        panels.append(element("figure", image, element("figcaption", NAMES[picture])))
    remark = f"{size[0]} × {size[1]} px at {columns.start}, {rows.start}; each pixel a whole number of times as large"
    strip = element("div", joined(*panels), class_="strip", tabindex=0, role="region", aria_label=titles[name])
    return element("div", element("h3", titles[name]), strip, element("p", remark, class_="remark"), class_="close-ups")


def _chosen(subject: Subject) -> Markup:
    facts = subject.adapter.facts
    parts: list[Markup | None] = [element("h3", "What was chosen, and why")]
    parts += [element("p", sentence) for sentence in why(subject.adapter)]
    compared = candidates(facts)
    if len(compared) > 1 and subject.adapter.correction != "none":
        items = [
            Bar(name, value, f"{1000 * value:.2f}", kind="adapted" if name == chosen_candidate(facts) else "muted")
            for name, value in compared.items()
        ]
        parts.append(bars(items, "What each correction leaves unexplained"))
        parts.append(element("p", "Unexplained, in thousandths of the full range; less is better.", class_="remark"))
    return element("div", joined(*parts), class_="card chosen" if subject.curves else "card chosen only")


def _kernel(subject: Subject) -> Markup:
    """Draw the estimated kernel; what it is compared with beside it."""
    shown, scale = subject.kernels, subject.adapter.scale
    if not shown:
        words = "The adapter holds no kernel."
        return element("figure", element("h3", "Estimated blur kernel"), element("p", words), class_="card")
    captions = [f"{kernel_words(each.kernel)}." for each in shown]
    titles = [each.name[0].upper() + each.name[1:] for each in shown]
    if len(shown) == 1:
        drawing = kernel_svg(shown[0].kernel, scale, f"Kernel: {captions[0][:-1]}")
        return element("figure", element("h3", titles[0]), drawing, element("figcaption", captions[0]), class_="card")
    labels = tuple(f"{title}: {caption[:-1]}" for title, caption in zip(titles, captions))
    drawings = kernel_svgs(tuple(each.kernel for each in shown), scale, labels)
    figures = []
    for each, title, caption, drawing in zip(shown, titles, captions, drawings):
        error = (
            element("b", f"Relative error against the true one: {each.error:.2f}.") if each.error is not None else None
        )
        words = element("figcaption", element("span", caption), error)
        figures.append(element("figure", element("h4", title), drawing, words))
    remark = element("p", "All on one scale of colours and of lengths.", class_="remark")
    beside = element("div", joined(*figures), class_="kernels")
    return element("div", element("h3", "Blur kernels"), beside, remark, class_="card whole")


def _filters(subject: Subject) -> list[Markup]:
    title = element("h3", "How strongly each pixel is corrected")
    if subject.filters is None:
        words = "No correction: the backbone alone is used."
        return [element("div", title, element("p", words), class_="card")]
    if subject.filters.shape[:2] == (1, 1):
        drawing = filters_svg([subject.filters[0, 0]], "The correction filter")
        caption = element("figcaption", "One 5×5 filter for every pixel; red taps are negative, blue ones positive.")
        return [element("figure", element("h3", "Correction filter"), drawing, caption, class_="card")]
    drawing, shown = map_svg(subject.filters, "Map of the centre taps of the pixels’ filters")
    caption = "Centre tap of the pixel’s 5×5 filter; 1 leaves the pixel as it is."
    return [
        element("figure", title, drawing, element("figcaption", caption), class_="card"),
        element(
            "figure",
            element("h3", "Filters at these places"),
            filters_svg(shown, "Four correction filters with their taps"),
            element("figcaption", "From the weakest to the strongest; red taps are negative, blue ones positive."),
            class_="card",
        ),
    ]


def _curves(subject: Subject) -> list[Markup]:
    cards = []
    for phase, curve in subject.curves.items():
        title = _PHASES.get(phase, phase)
        words = f"{curve.steps} steps"
        words += "" if len(curve.means) == curve.steps else f", means of {len(curve.means)} equal parts"
        words += (
            "; the calmer line is a moving average, since every step sees other crops."
            if len(curve.means) >= 10
            else "."
        )
        drawing, unit = curve_svg(curve, title)
        caption = element("figcaption", f"{words}{unit}")
        cards.append(element("figure", element("h3", title), drawing, caption, class_="card"))
    return cards
