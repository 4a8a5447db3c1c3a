"""ONNX files as graphs: read, imported op by op, compiled and called with numpy or torch."""
