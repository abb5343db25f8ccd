//! Conversations and what is told of them.

mod acceptance;
mod conversations;
mod damage;
mod extended;
mod queries;
mod sessions;
mod times;
mod wire;
