"""The course's own `Net` classes, as their user has them: what weights must pass to and from. Independent of `job`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, size: int, padding: int = 0) -> nn.Conv2d:
    return nn.Conv2d(in_channels=inputs, out_channels=outputs, kernel_size=(size, size), padding=padding, bias=False)


def relu(inputs: int, outputs: int, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, 3, padding), nn.ReLU(), nn.BatchNorm2d(outputs), nn.Dropout(0.1))


def gelu(inputs: int, outputs: int, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, 3, padding), nn.GELU(), nn.BatchNorm2d(outputs), nn.Dropout(0.03))


class Net1(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convblock1, self.convblock2 = relu(1, 16), relu(16, 32)
        self.convblock3, self.pool1 = nn.Sequential(conv(32, 10, 1)), nn.MaxPool2d(2, 2)
        self.convblock4, self.convblock5, self.convblock6 = relu(10, 16), relu(16, 16), relu(16, 16)
        self.convblock7 = relu(16, 16, padding=1)
        self.gap = nn.Sequential(nn.AvgPool2d(kernel_size=6))
        self.convblock8 = nn.Sequential(conv(16, 10, 1))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.convblock3(self.convblock2(self.convblock1(x))))
        x = self.convblock7(self.convblock6(self.convblock5(self.convblock4(x))))
        return F.log_softmax(self.convblock8(self.gap(x)).view(-1, 10), dim=-1)


class Net2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convblock1, self.convblock2 = relu(1, 8), relu(8, 16)
        self.convblock3, self.pool1 = nn.Sequential(conv(16, 8, 1)), nn.MaxPool2d(2, 2)
        self.convblock4, self.convblock5 = relu(8, 12), relu(12, 12)
        self.convblock6 = relu(12, 12, padding=1)
        self.gap = nn.Sequential(nn.AvgPool2d(kernel_size=8))
        self.convblock7 = nn.Sequential(conv(12, 10, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.convblock3(self.convblock2(self.convblock1(x))))
        x = self.gap(self.convblock6(self.convblock5(self.convblock4(x))))
        return F.log_softmax(self.convblock7(x).view(-1, 10), dim=-1)


class Net3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convblock1, self.convblock2 = gelu(1, 10), gelu(10, 14)
        self.convblock3, self.pool1 = nn.Sequential(conv(14, 10, 1)), nn.MaxPool2d(2, 2)
        self.convblock4, self.convblock5 = gelu(10, 14), gelu(14, 14)
        self.convblock6, self.convblock7 = gelu(14, 12), gelu(12, 12, padding=1)
        self.gap = nn.Sequential(nn.AvgPool2d(kernel_size=6))
        self.convblock8 = nn.Sequential(conv(12, 10, 1))
        self.skip1, self.skip2 = conv(10, 14, 1), conv(14, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.convblock3(self.convblock2(self.convblock1(x))))
        x4 = self.convblock4(x)
        x4 = x4 + self.skip1(F.interpolate(x, size=(x4.shape[2], x4.shape[3])))
        x6 = self.convblock6(self.convblock5(x4))
        x6 = x6 + self.skip2(F.interpolate(x4, size=x6.shape[2:]))
        x7 = self.convblock7(x6)
        x7 = x7 * torch.sigmoid(F.adaptive_avg_pool2d(x7, 1))
        return F.log_softmax(self.convblock8(self.gap(x7)).view(-1, 10), dim=-1)


NETS = {1: Net1, 2: Net2, 3: Net3}
