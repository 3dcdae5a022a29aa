//! Who n8n's containers are, and how they are held while something under them is replaced.

pub mod pause;
