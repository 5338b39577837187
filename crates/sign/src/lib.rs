//! Signatures: of SIF files (PGP, and DSSE with keys in PEM), and of the images they are made from (cosign).

pub mod cosign;
pub mod image;
