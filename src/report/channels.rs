//! The channels that there are.

use super::channel::Channel;
use super::hook::Hook;
use super::metrics::MetricsFile;
use super::ping::Ping;
use crate::config::Config;

/// Every channel, in the order in which they are told.
const CHANNELS: &[&dyn Channel] = &[&MetricsFile, &Ping, &Hook];

/// The channels that the settings ask for.
pub fn channels(config: &Config) -> impl Iterator<Item = &'static dyn Channel> + '_ {
    CHANNELS.iter().copied().filter(|channel| channel.is_on(config))
}
