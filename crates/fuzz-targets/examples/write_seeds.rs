//! Writes the seeds of every fuzz target to folders of their names: `cargo run -p fuzz-targets --example write_seeds DIR`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let Some(root) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(std::io::Error::other("name the folder to write to"));
    };
    for target in fuzz_targets::TARGETS {
        let folder = root.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in fuzz_targets::seeds(target.name).into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
