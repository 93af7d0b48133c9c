//! Parameters and batch-norm statistics.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::instance::Instance;
use crate::network::Network;

/// The values of a network's parameters, in the order of
/// [`Network::parameters`] and in PyTorch's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights(pub Vec<Vec<f32>>);

/// The mean and the unbiased variance of each input channel of a batch norm.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// `running_mean` in PyTorch.
    pub mean: Vec<f32>,
    /// `running_var` in PyTorch.
    pub var: Vec<f32>,
}

/// The batch-norm statistics of a network's instances.
///
/// An instance is the same computation as `full` up to its point, so only the
/// moments of the batch norms after its point are stored for it; see
/// [`Network::own_norms`].
///
/// An instance may also have parameters of its own, which replace the network's
/// while it runs; see [`Network::own_parameters`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    own: BTreeMap<Instance, Vec<Moments>>,
    norms: usize,
    parameters: BTreeMap<Instance, OwnParameters>,
}

/// The parameters of an instance's own: the index of each in
/// [`Network::parameters`], and its values.
pub type OwnParameters = BTreeMap<usize, Vec<f32>>;

impl Weights {
    /// Zeros for every parameter, for gradients and momentum.
    pub fn zeros(network: &Network) -> Self {
        Self(
            network
                .parameters()
                .iter()
                .map(|parameter| vec![0.0; parameter.len()])
                .collect(),
        )
    }

    /// Whether the weights have the number and lengths of the network's
    /// parameters.
    pub fn fit(&self, network: &Network) -> bool {
        let parameters = network.parameters();
        self.0.len() == parameters.len()
            && std::iter::zip(&self.0, parameters).all(|(data, p)| data.len() == p.len())
    }

    /// Selects the weights of the network `to` from these weights of the network
    /// `from`, by parameter name. Returns `None` if `from` lacks a parameter or
    /// has it with another length.
    pub fn select(&self, from: &Network, to: &Network) -> Option<Self> {
        let theirs: BTreeMap<&str, usize> = from
            .parameters()
            .iter()
            .enumerate()
            .map(|(index, parameter)| (parameter.name.as_str(), index))
            .collect();
        let ours = to.parameters().iter().map(|parameter| {
            let values = self.0.get(*theirs.get(parameter.name.as_str())?)?;
            (values.len() == parameter.len()).then(|| values.clone())
        });
        ours.collect::<Option<_>>().map(Self)
    }

    /// The total number of values.
    pub fn count(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

impl Moments {
    /// Mean 0 and variance 1, PyTorch's initial values.
    pub fn identity(channels: usize) -> Self {
        Self {
            mean: vec![0.0; channels],
            var: vec![1.0; channels],
        }
    }
}

impl Statistics {
    /// Mean 0 and variance 1 for `full`, and no other instances.
    pub fn identity(network: &Network) -> Self {
        let norms = network.norms();
        let full = norms.iter().map(|n| Moments::identity(n.channels));
        let mut statistics = Self {
            own: BTreeMap::new(),
            norms: norms.len(),
            parameters: BTreeMap::new(),
        };
        statistics.own.insert(Instance::Full, full.collect());
        statistics
    }

    /// As [`Statistics::identity`], for `full` and `instances`. Instances whose
    /// point the network lacks are skipped.
    pub fn identity_for(network: &Network, instances: &[Instance]) -> Self {
        let mut statistics = Self::identity(network);
        let norms = network.norms();
        for &instance in instances.iter().filter(|&&i| network.has(i)) {
            let own = norms[network.own_norms(instance)].iter();
            let own = own.map(|norm| Moments::identity(norm.channels));
            statistics.set(network, instance, own.collect());
        }
        statistics
    }

    /// Statistics of a network with `norms` batch norms. `own` must have the
    /// moments of each instance's own norms; it is not validated.
    pub(crate) fn from_own(
        norms: usize,
        own: impl IntoIterator<Item = (Instance, Vec<Moments>)>,
    ) -> Self {
        Self {
            own: own.into_iter().collect(),
            norms,
            parameters: BTreeMap::new(),
        }
    }

    /// Sets the moments of the norms after an instance's point. Parameters of its
    /// own are removed: they were trained with other moments.
    ///
    /// # Panics
    /// If their number or sizes are not those of [`Network::own_norms`].
    pub fn set(&mut self, network: &Network, instance: Instance, own: Vec<Moments>) {
        let norms = network.norms();
        let range = network.own_norms(instance);
        assert_eq!(own.len(), range.len(), "one pair of moments a batch norm");
        for (norm, moments) in std::iter::zip(&norms[range], &own) {
            assert_eq!(moments.mean.len(), norm.channels, "{}", norm.name);
            assert_eq!(moments.var.len(), norm.channels, "{}", norm.name);
        }
        self.norms = norms.len();
        self.own.insert(instance, own);
        self.parameters.remove(&instance);
    }

    /// Sets the parameters of an instance's own.
    ///
    /// # Panics
    /// If they are not those of [`Network::own_parameters`], if a length is
    /// wrong, or the instance has no statistics.
    pub fn set_parameters(&mut self, network: &Network, instance: Instance, own: OwnParameters) {
        assert!(self.contains(instance), "{instance} has no statistics");
        let expected = network.own_parameters(instance);
        assert!(
            expected.iter().eq(own.keys()),
            "the parameters of {instance}"
        );
        for (&index, values) in &own {
            let parameter = &network.parameters()[index];
            assert_eq!(values.len(), parameter.len(), "{}", parameter.name);
        }
        self.parameters.insert(instance, own);
    }

    /// As [`Statistics::set_parameters`], without its checks.
    pub(crate) fn insert_parameters(&mut self, instance: Instance, own: OwnParameters) {
        self.parameters.insert(instance, own);
    }

    /// The parameters of an instance's own, if it has any.
    pub fn parameters(&self, instance: Instance) -> Option<&OwnParameters> {
        self.parameters.get(&instance)
    }

    /// The values of the parameter with this index in an instance: its own, or
    /// else those of `weights`.
    pub fn parameter<'a>(
        &'a self,
        weights: &'a Weights,
        instance: Instance,
        index: usize,
    ) -> &'a [f32] {
        let own = self.parameters.get(&instance);
        own.and_then(|own| own.get(&index))
            .unwrap_or(&weights.0[index])
    }

    /// The instances that have parameters of their own.
    pub fn tuned(&self) -> impl Iterator<Item = Instance> {
        self.parameters.keys().copied()
    }

    /// The instances that have statistics, `full` first.
    pub fn instances(&self) -> impl Iterator<Item = Instance> {
        self.own.keys().copied()
    }

    /// Whether an instance has statistics.
    pub fn contains(&self, instance: Instance) -> bool {
        self.own.contains_key(&instance)
    }

    /// The moments stored for an instance, and their range in
    /// [`Network::norms`].
    pub fn own(&self, instance: Instance) -> Option<(Range<usize>, &[Moments])> {
        let own = self.own.get(&instance)?;
        Some((self.norms - own.len()..self.norms, own))
    }

    /// The moments of a norm in an instance: its own after its point, those of
    /// `full` before it.
    pub fn get(&self, instance: Instance, norm: usize) -> Option<&Moments> {
        let (range, own) = self.own(instance)?;
        if range.contains(&norm) {
            return Some(&own[norm - range.start]);
        }
        self.own.get(&Instance::Full)?.get(norm)
    }

    /// Removes the statistics of an instance, and parameters of its own.
    pub fn remove(&mut self, instance: Instance) {
        self.own.remove(&instance);
        self.parameters.remove(&instance);
    }
}
