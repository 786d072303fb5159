//! What the fuzz target calls: a reader of bytes from outside, with the properties that hold for any input.

use crate::fluent::connection::Connection;

/// What a fluent forward receiver sends: no panic, no handshake with one that does not know the key, and no acknowledgement
/// of a chunk that it does not name.
///
/// # Panics
/// When a property does not hold.
pub fn fluent_receiver(bytes: &[u8]) {
    const CHUNK: &str = "chunk-7";
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    runtime.block_on(async {
        let receiver = || Connection::over(Box::new(tokio::io::join(std::io::Cursor::new(bytes.to_vec()), tokio::io::sink())));
        assert!(receiver().introduce("key").await.is_err(), "a receiver without the key passes for one that has it");
        if receiver().acknowledged(CHUNK, std::time::Duration::from_secs(60)).await.is_ok() {
            let named = bytes.windows(CHUNK.len()).any(|window| window == CHUNK.as_bytes());
            assert!(named, "an acknowledgement of what is not named");
        }
    });
}
