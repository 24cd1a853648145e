"""Neural networks for tables, whatever the library that computes them.

`table` encodes what `features` returns, `inner_split` chooses the rows that training stops early
by, `network` is what the estimators of all libraries have in common, and `graph` writes the inputs
of a network as ONNX.
"""
