/// Sees a tar as it is but for the contents of its files: with these put in where they belong it can be made again, byte by
/// byte.
pub trait Framing {
    /// The next bytes that are no file's contents: headers, extensions, padding, what follows the end.
    fn bytes(&mut self, bytes: &[u8]);

    /// Here stand the `size` bytes of the next file that [`crate::Contents`] is offered. `inside`: they are among the bytes
    /// that follow, in another form, for the member is sparse.
    fn file(&mut self, size: u64, inside: bool);
}

/// Nobody looks.
impl Framing for () {
    fn bytes(&mut self, _: &[u8]) {}

    fn file(&mut self, _: u64, _: bool) {}
}

impl<F: Framing + ?Sized> Framing for &mut F {
    fn bytes(&mut self, bytes: &[u8]) {
        (**self).bytes(bytes);
    }

    fn file(&mut self, size: u64, inside: bool) {
        (**self).file(size, inside);
    }
}
