//! Rules of the workspace, checked against what cargo says of it.

mod architecture;
