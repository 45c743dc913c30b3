//! `pipe` through the door a user uses: one binary, one file per behaviour.

mod bundle;
mod cache;
mod ci;
mod ci_init;
mod diff;
mod faults;
mod identity;
mod interrupt;
mod looking;
mod mistakes;
mod prefix;
mod running;
mod scale;
mod space;
mod specs;
mod verify;
mod why;
