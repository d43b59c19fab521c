"""The rows that are measured: sizes that users have, and how far ahead of the best peer each has to be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One module and one input; `target` is how many times faster than the best peer it has to be, called from Python."""

    kind: str  # "LSTM", "GRU" or "Linear"
    input_size: int
    hidden_size: int  # of a Linear: out_features
    target: float
    num_layers: int = 1
    steps: int = 1
    batch: int = 1
    bidirectional: bool = False

    @property
    def name(self) -> str:
        if self.kind == "Linear":
            return f"Linear {self.batch} x {self.input_size} -> {self.hidden_size}"
        both = ", both directions" if self.bidirectional else ""
        layers = f", {self.num_layers} layers" if self.num_layers > 1 else ""
        return f"{self.kind}({self.input_size}, {self.hidden_size}{layers}{both}), {self.steps} steps, batch {self.batch}"

    @property
    def gates(self) -> int:
        return {"LSTM": 4, "GRU": 3, "Linear": 1}[self.kind]

    @property
    def multiplications(self) -> int:
        if self.kind == "Linear":
            return self.batch * self.input_size * self.hidden_size
        directions = 2 if self.bidirectional else 1
        h = self.hidden_size
        first = self.input_size + h
        others = (self.num_layers - 1) * (directions * h + h)
        return self.steps * self.batch * self.gates * h * directions * (first + others)

    @property
    def streamed_bytes(self) -> int:
        """Recurrent weights in int8 that each step reads once, over all steps, layers and directions."""
        if self.kind == "Linear":
            return self.input_size * self.hidden_size if self.batch == 1 else 0
        directions = 2 if self.bidirectional else 1
        return self.steps * self.num_layers * directions * self.recurrent_bytes

    @property
    def recurrent_bytes(self) -> int:
        """The int8 weights that are read over and over: which cache they fit in decides how fast they stream."""
        if self.kind == "Linear":
            return self.input_size * self.hidden_size
        return self.gates * self.hidden_size * self.hidden_size


ROWS = (
    Row("LSTM", 8, 8, 1.3, steps=20),
    Row("LSTM", 64, 64, 2.3, steps=100),
    Row("LSTM", 128, 128, 2.0, steps=100),
    Row("LSTM", 256, 256, 1.6, steps=100),
    Row("LSTM", 512, 512, 1.4, steps=100),
    Row("LSTM", 1024, 1024, 1.25, steps=50),
    Row("LSTM", 2048, 2048, 1.1, steps=20),
    Row("LSTM", 512, 256, 1.5, num_layers=5, steps=25),
    Row("LSTM", 256, 256, 1.25, steps=100, batch=16),
    Row("LSTM", 512, 512, 1.15, num_layers=2, steps=35, batch=20),
    Row("LSTM", 1024, 1024, 1.1, steps=25, batch=64),
    Row("LSTM", 256, 128, 1.6, num_layers=3, steps=100, bidirectional=True),
    Row("GRU", 64, 64, 3.0, steps=100),
    Row("GRU", 256, 256, 4.0, steps=100),
    Row("GRU", 512, 512, 2.5, steps=100),
    Row("GRU", 1024, 1024, 1.6, steps=50),
    Row("GRU", 256, 256, 2.0, steps=100, batch=16),
    Row("Linear", 768, 768, 1.3),
    Row("Linear", 768, 3072, 1.3),
    Row("Linear", 4096, 4096, 1.15),
    Row("Linear", 768, 3072, 1.05, batch=16),
    Row("Linear", 768, 768, 1.0, batch=128),
    Row("Linear", 768, 3072, 1.0, batch=128),
    Row("Linear", 3072, 768, 1.0, batch=128),
    Row("Linear", 768, 3072, 1.0, batch=1024),
)
