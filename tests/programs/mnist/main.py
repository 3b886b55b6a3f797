"""pytorch/examples/mnist: arguments by argparse, one file saved where it was started."""

import argparse

import torch
from torch import nn


def main():
    parser = argparse.ArgumentParser(description="PyTorch MNIST Example")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--lr", type=float, default=1.0)
    parser.add_argument("--no-cuda", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-model", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    images, labels = torch.randn(256, 1, 8, 8), torch.randint(10, (256,))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    for epoch in range(1, args.epochs + 1):
        for begin in range(0, 256, args.batch_size):
            batch = slice(begin, begin + args.batch_size)
            model.zero_grad()
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            with torch.no_grad():
                for weight in model.parameters():
                    weight -= args.lr * weight.grad
        print(f"Train Epoch: {epoch}\tLoss: {loss.item():.4f}")
    if args.save_model:
        torch.save(model.state_dict(), "mnist_cnn.pt")


if __name__ == "__main__":
    main()
