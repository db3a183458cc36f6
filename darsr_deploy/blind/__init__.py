"""Find out what happened to an image: everything that looks at it, and a judgement on what they say."""
