"""What Lightning's Trainer leaves in lightning_logs/version_N: settings, metrics, event files, checkpoints, a link."""

import csv
import os
import sys
from pathlib import Path

root = Path("lightning_logs")
version = len(list(root.glob("version_*")))
folder = root / f"version_{version}"
(folder / "checkpoints").mkdir(parents=True)
epochs = int(sys.argv[sys.argv.index("--trainer.max_epochs") + 1])
(folder / "hparams.yaml").write_text("learning_rate: 0.001\nhidden_dim: 128\n")
rows = [{"epoch": epoch, "step": 10 * (epoch + 1), "val_loss": round(1 / (epoch + 1), 4)} for epoch in range(epochs)]
with open(folder / "metrics.csv", "w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
try:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
except ImportError:
    print("no tensorboard: metrics.csv alone")
else:
    events = EventFileWriter(str(folder))
    for row in rows:
        value = Summary.Value(tag="val_loss", simple_value=row["val_loss"])
        events.add_event(Event(step=row["step"], wall_time=1.0, summary=Summary(value=[value])))
    events.close()
for row in rows:
    name = f"epoch={row['epoch']}-step={row['step']}.ckpt"
    (folder / "checkpoints" / name).write_bytes(name.encode() * 100)
    last = folder / "checkpoints" / "last.ckpt"
    last.unlink(missing_ok=True)
    os.symlink(name, last)
print(f"`Trainer.fit` stopped: `max_epochs={epochs}` reached.")
