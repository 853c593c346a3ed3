//! The instances that a worker has for all of its plugins, shared out among them.

use super::{Balance, Config, MAX_INSTANCES, PluginLimits};

impl PluginLimits {
    /// Most instances that a plugin may have in a worker, beside those that balance upstreams.
    pub fn most_instances(&self) -> usize {
        self.instances + RESERVES * self.instance_reserve
    }
}

/// Times `limits.instance_reserve` that a plugin may have beyond `limits.instances`: for sub-requests, responses and `log`.
pub const RESERVES: usize = 3;

/// Instances that the plugins of a config may have together in a worker.
pub fn all_instances(config: &Config) -> usize {
    let of_plugins: usize = pools(config).map(PluginLimits::most_instances).sum();
    // An instance that a snapshot is made from comes before a plugin's own.
    of_plugins + policies(config) + 1
}

/// Limits of each pool of instances: a plugin has one for its own config, and one for each config that lists have for it.
fn pools(config: &Config) -> impl Iterator<Item = &PluginLimits> {
    config.plugins.iter().flat_map(|(name, plugin)| {
        let pools = 1 + config.configs_of_uses(name).len();
        std::iter::repeat_n(&plugin.limits, pools)
    })
}

/// Instances that balance an upstream.
fn policies(config: &Config) -> usize {
    let upstreams = config.upstreams.values();
    let balanced = upstreams.filter(|upstream| matches!(upstream.balance, Balance::Plugin(_)));
    balanced.count()
}

/// Lowers `limits.instances` of those plugins that have most, so far that a worker has room for all: else one that is busy would have
/// those of others, whose calls would fail. Returns the most that a plugin may have then; `None`: nothing had to be lowered.
pub(super) fn share_out(config: &mut Config) -> Option<usize> {
    if all_instances(config) <= MAX_INSTANCES {
        return None;
    }
    let reserves: usize = pools(config).map(|it| RESERVES * it.instance_reserve).sum();
    let room = MAX_INSTANCES.saturating_sub(reserves + policies(config) + 1);
    let most = level(pools(config).map(|it| it.instances).collect(), room);
    for plugin in config.plugins.values_mut() {
        plugin.limits.instances = plugin.limits.instances.min(most);
    }
    Some(most)
}

/// The highest level at which all that are cut to it have room together; 1 at least.
fn level(mut wanted: Vec<usize>, mut room: usize) -> usize {
    wanted.sort_unstable();
    let mut left = wanted.len();
    for wants in wanted {
        let each = room / left;
        if wants > each {
            return each.max(1);
        }
        room -= wants;
        left -= 1;
    }
    usize::MAX
}

/// A line for a person where plugins have fewer instances than their limits say.
pub fn instances_warning(config: &Config) -> Option<String> {
    let most = config.instances_shared?;
    Some(format!(
        "plugins: their limits.instances are more than the {MAX_INSTANCES} that a worker has for all: none has more than {most}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_want_little_have_it_and_the_others_share_the_rest() {
        assert_eq!(level(vec![10, 300, 20], 1000), usize::MAX);
        assert_eq!(level(vec![1000, 10, 1000, 20], 1030), 500);
        assert_eq!(level(vec![256; 20], 4096 - 20 * 12), 192);
        assert_eq!(level(vec![5; 20], 10), 1);
    }
}
