mod architecture;
mod harness;
