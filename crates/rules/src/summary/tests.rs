mod history;
mod vectors;
