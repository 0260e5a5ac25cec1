"""Running a network with exits that are really taken, and what it costs."""

import logging

# PyTorch's timer asks for CUDA's compiler as it is imported, and logs where there is one and no GPU.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
