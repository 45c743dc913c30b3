//! `pipe` through the door a user uses: one binary, one file per behaviour.

mod bundle;
mod cache;
mod ci;
mod ci_init;
mod diff;
mod faults;
mod identity;
mod inside;
mod interrupt;
mod looking;
mod mistakes;
mod prefix;
mod probes;
mod report;
mod running;
mod samples;
mod scale;
mod score;
mod space;
mod specs;
mod verify;
mod verify_sample;
mod why;
