"""PySide6 in the place of PythonQt, CTK and qMRML, so that the desktop module runs without the Slicer application.

A stand-in proves that our code runs, not that Slicer's own widget behaves so.
"""
