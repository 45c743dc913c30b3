//! Fetching as a user meets it: real files, a real server on the loopback, a real or a made-up pip.

mod desk;
mod hub;
mod listing;
mod pypi;
mod resume;
mod server;
mod sources;
mod web;
