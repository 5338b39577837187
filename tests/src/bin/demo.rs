//! `make demo`.

fn main() {
    siforge_tests::demo::demo();
}
