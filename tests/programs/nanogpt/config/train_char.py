out_dir = "out-char"
dataset = "char"
max_iters = 100
eval_interval = 50
