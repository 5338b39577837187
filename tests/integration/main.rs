mod agent;
mod architecture;
mod harness;
mod operator;
mod registry;
