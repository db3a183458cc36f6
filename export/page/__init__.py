"""The page of ``darsr ui``: a server for one machine that opens photographs, shows what is made of them and hands it out."""
