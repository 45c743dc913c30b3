//! `pipe` through the door a user uses: one binary, one file per behaviour.

mod bundle;
mod faults;
mod identity;
mod inside;
mod interrupt;
mod looking;
mod mistakes;
mod prefix;
mod report;
mod running;
mod scale;
mod score;
mod space;
mod specs;
mod verify;
