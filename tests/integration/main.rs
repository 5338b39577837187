mod agent;
mod architecture;
mod harness;
mod registry;
