"""Write the page of ``darsr report``: one HTML file with its pictures, style and script inside, which loads nothing."""
