//! Looking at a stream that passes by.

use anyhow::Result;

/// Looks at every byte that a pump moves.
pub trait Observer: Send + 'static {
    /// Takes the next bytes of the stream, cut anywhere. An error ends the chain.
    fn feed(&mut self, chunk: &[u8]) -> Result<()>;

    /// Is told that the stream has ended.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Observer for () {
    fn feed(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Keeps all of a stream that is known to be short.
impl Observer for Vec<u8> {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.extend_from_slice(chunk);
        Ok(())
    }
}

impl<A: Observer, B: Observer> Observer for (A, B) {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.0.feed(chunk)?;
        self.1.feed(chunk)
    }

    fn end(&mut self) -> Result<()> {
        self.0.end()?;
        self.1.end()
    }
}

impl<O: Observer> Observer for Vec<O> {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.feed(chunk))
    }

    fn end(&mut self) -> Result<()> {
        self.iter_mut().try_for_each(Observer::end)
    }
}

/// Counts the bytes of a stream.
#[derive(Debug, Default)]
pub struct Count(pub u64);

impl Observer for Count {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        self.0 += chunk.len() as u64;
        Ok(())
    }
}
