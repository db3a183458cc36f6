"""The page of a ``darsr report``: one HTML file that holds its pictures, style and program, and asks no network."""
