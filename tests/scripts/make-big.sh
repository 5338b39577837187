#!/bin/bash
# make-big.sh FOLDER PYTHON - makes an OCI layout (image "image") of what people who train networks use; keeps what is there.
# PYTHON is what make-python.sh made.
#
#   layers 1 to 4  python's
#   layer 5        cuDNN and cuBLAS
#   layer 6        PyTorch
#   layer 7        transformers, pyarrow, pillow
#   layer 8        headers and tests of packages removed (whiteouts), a folder for models
#
# Needs root, umoci, python3 with pip, 12 GB of disk while it is made. 2.7 GB of layers.
set -euo pipefail
. "$(dirname "$0")/make-image.sh"
python=$(realpath "${2:?folder of python}")
begin "${1:?folder}"

cp -r "$python" layout
umoci unpack --image layout:image bundle

wheels nvidia-cudnn-cu12==9.1.0.70 nvidia-cublas-cu12==12.4.5.8
pip_install nvidia-cudnn-cu12 nvidia-cublas-cu12
layer

wheels torch==2.6.0 typing_extensions networkx jinja2 markupsafe fsspec filelock
pip_install torch typing_extensions networkx jinja2 markupsafe fsspec filelock
layer

wheels transformers==4.46.3 pyarrow==17.0.0 pillow==11.0.0
pip_install transformers pyarrow pillow
layer

packages=$root/usr/local/lib/python3.11/dist-packages
rm -r "$packages/torch/include" "$packages/pyarrow/tests"
mkdir "$root/models"
echo x > "$root/models/README"
layer
umoci config --image layout:image --config.env HF_HOME=/models --architecture amd64 --os linux
finish
