//! The one-pass check: it catches every fault, names the block, and never cries wolf.

mod clean;
mod faults;
mod toy;
