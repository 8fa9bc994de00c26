"""Checks ONNX files that may come from anywhere, before an engine reads them. Needs NumPy alone.

file          what the file declares is there, and is plain data
graph         nodes and tensors as they are read from it
sizes         what the graph would compute has a size, which is known and within reason
operators     the operators that may run, and their rules, which are in shapes, windows and values
"""
