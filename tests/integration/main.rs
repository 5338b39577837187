mod agent;
mod apptainer;
mod architecture;
mod end_to_end;
mod harness;
mod operator;
mod registry;
mod slurm;
