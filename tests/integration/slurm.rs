//! The SPANK plugin in a real Slurm, with the real agent on a store.

mod callbacks;
mod place;

use place::Place;

#[test]
fn probe() {
    let place = Place::start();
    for words in [
        &["cat", "/proc/self/cmdline"][..],
        &["--sif=lab/tiny", "cowsay", "a", "b"],
        &["--sif=lab/tiny", "tail"],
        &["--sif=lab/tiny", "/bin/env"],
        &[
            "--sif=lab/tiny",
            "sh",
            "-c",
            "cat /proc/self/status /proc/mounts; pwd; ls /; id",
        ],
        &["--sif=lab/tinny", "cowsay"],
    ] {
        println!("{}", place.srun(words));
    }
    println!("{}", place.slurm.logs());
}
