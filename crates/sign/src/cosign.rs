//! cosign's key-based signatures of images.
