"""The browser app: trame-slicer's views over the same controller and panel as the desktop module (extra ``web``)."""
