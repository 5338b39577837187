//! Signatures: of SIF files (PGP, DSSE with PEM keys and X.509), and of the images they are made from (cosign).

pub mod cosign;
