"""PyTorch's recipe "Dynamic Quantization", with one import changed.

https://docs.pytorch.org/tutorials/recipes/recipes/dynamic_quantization.html
"""

import os
import time

import torch
import torch.nn as nn

# import torch.quantization as quantization
import fourfold as quantization


# 1. Set up: define a very, very simple LSTM for demonstration purposes
class lstm_for_demonstration(nn.Module):
    """Elementary Long Short Term Memory style model which simply wraps nn.LSTM"""

    def __init__(self, in_dim, out_dim, depth):
        super().__init__()
        self.lstm = nn.LSTM(in_dim, out_dim, depth)

    def forward(self, inputs, hidden):
        out, hidden = self.lstm(inputs, hidden)
        return out, hidden


torch.manual_seed(29592)  # set the seed for reproducibility

# shape parameters
model_dimension = 8
sequence_length = 20
batch_size = 1
lstm_depth = 1

# random data for input
inputs = torch.randn(sequence_length, batch_size, model_dimension)
# hidden is actually is a tuple of the initial hidden state and the initial cell state
hidden = (
    torch.randn(lstm_depth, batch_size, model_dimension),
    torch.randn(lstm_depth, batch_size, model_dimension),
)

# 2. Do the quantization
float_lstm = lstm_for_demonstration(model_dimension, model_dimension, lstm_depth)
quantized_lstm = quantization.quantize_dynamic(float_lstm, {nn.LSTM, nn.Linear}, dtype=torch.qint8)

print("Here is the floating point version of this module:")
print(float_lstm)
print("")
print("and now the quantized version:")
print(quantized_lstm)


# 3. Look at model size
def print_size_of_model(model, label=""):
    torch.save(model.state_dict(), "temp.p")
    size = os.path.getsize("temp.p")
    print("model: ", label, " \t", "Size (KB):", size / 1e3)
    os.remove("temp.p")
    return size


f = print_size_of_model(float_lstm, "fp32")
q = print_size_of_model(quantized_lstm, "int8")
print(f"{f / q:.2f} times smaller")


# 4. Look at latency
def microseconds_per_call(model):
    with torch.no_grad():
        times = []
        for _ in range(1000):
            start = time.perf_counter()
            model(inputs, hidden)
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2] * 1e6


print(f"Floating point FP32: {microseconds_per_call(float_lstm):.1f} µs")
print(f"Quantized INT8: {microseconds_per_call(quantized_lstm):.1f} µs")

# 5. Look at accuracy
# run the float model
out1, hidden1 = float_lstm(inputs, hidden)
mag1 = torch.mean(abs(out1)).item()
print(f"mean absolute value of output tensor values in the FP32 model is {mag1:.5f} ")

# run the quantized model
out2, hidden2 = quantized_lstm(inputs, hidden)
mag2 = torch.mean(abs(out2)).item()
print(f"mean absolute value of output tensor values in the INT8 model is {mag2:.5f}")

# compare them
mag3 = torch.mean(abs(out1 - out2)).item()
print(
    "mean absolute value of the difference between the output tensors is "
    f"{mag3:.5f} or {mag3 / mag1 * 100:.2f} percent"
)
