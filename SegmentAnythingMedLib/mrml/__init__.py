"""The MRML layer: volumes, slice views, prompts and segments of a given vtkMRMLScene.

Nothing here knows Qt, ``slicer.app``, ``slicer.mrmlScene`` or ``slicer.modules``: scene and nodes are arguments, so the
same code runs in desktop Slicer, in the browser app and in tests. RAS coordinates live here and nowhere else.
"""
