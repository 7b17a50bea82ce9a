"""Things that can answer an inference call: OpenAI HTTP, Open Inference Protocol, ONNX Runtime, PyTorch, a fake."""
