//! Which algorithm computes a convolution.
//!
//! The choice follows from the shape and the instruction set alone: neither the number of
//! threads nor earlier batches change it, and so neither changes a bit of a result. All that
//! depends on it asks the functions here. For each algorithm there is one condition for what it
//! can compute, and one for where it is the fastest, whose numbers are in `tuning.rs`.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use super::gather::{BLOCK, Window};
use super::geometry::{ConvGeometry, ConvShape};
use super::layout::BlockedLayout;
use super::merge::Merged;
use super::problem::{Phase, Problem};
use super::tuning;
use crate::isa::Isa;

/// An algorithm for the products of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvAlgorithm {
    /// An implicit matrix product of as many multiplications as the definition has.
    Direct,
    /// Groups of one, two, four or eight channels: vectors run over several groups.
    Grouped,
    /// Winograd's minimal filtering for 3×3 kernels of stride 1.
    Winograd(WinogradTile),
    /// One level of Strassen's algorithm for 1×1 kernels.
    Strassen,
}

/// The outputs of a tile of Winograd's algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WinogradTile {
    /// F(2×2, 3×3): 16 multiplications for 4 outputs instead of 36.
    Two,
    /// F(4×4, 3×3): 36 multiplications for 16 outputs instead of 144.
    Four,
}

impl WinogradTile {
    /// Outputs in rows and in columns.
    pub(super) const fn outputs(self) -> usize {
        match self {
            WinogradTile::Two => 2,
            WinogradTile::Four => 4,
        }
    }

    /// Points, each with a matrix product of its own: as many as a tile has inputs.
    pub(super) const fn points(self) -> usize {
        let inputs = self.outputs() + 2;
        inputs * inputs
    }

    fn fewest_channels(self) -> usize {
        let [four, two] = tuning::WINOGRAD_FEWEST_CHANNELS;
        match self {
            WinogradTile::Two => two,
            WinogradTile::Four => four,
        }
    }

    /// Tiles of all images.
    fn count(self, problem: &Problem) -> usize {
        let [rows, columns] = problem.grid.map(|size| size.div_ceil(self.outputs()));
        problem.batch * rows * columns
    }

    /// Whether tiles of this size are worth their transforms.
    fn pays(self, layout: &BlockedLayout, problem: &Problem) -> bool {
        let [height, width] = problem.grid;
        let outputs = problem.batch * height * width;
        let covered = self.count(problem) * self.outputs() * self.outputs();
        let [most, of] = tuning::WINOGRAD_MOST_COVERED;
        channels(layout) >= self.fewest_channels()
            && covered * of <= outputs * most
            && self.count(problem) >= tuning::WINOGRAD_FEWEST_TILES
    }
}

impl ConvAlgorithm {
    /// All algorithms, in the order in which they are tried: the first that can compute a shape
    /// and pays for it is chosen.
    pub const ALL: [ConvAlgorithm; 5] = [
        ConvAlgorithm::Grouped,
        ConvAlgorithm::Winograd(WinogradTile::Four),
        ConvAlgorithm::Winograd(WinogradTile::Two),
        ConvAlgorithm::Strassen,
        ConvAlgorithm::Direct,
    ];
}

impl fmt::Display for ConvAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ConvAlgorithm::Direct => "direct",
            ConvAlgorithm::Grouped => "grouped",
            ConvAlgorithm::Winograd(WinogradTile::Two) => "winograd2",
            ConvAlgorithm::Winograd(WinogradTile::Four) => "winograd4",
            ConvAlgorithm::Strassen => "strassen",
        })
    }
}

impl FromStr for ConvAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.to_string() == name)
            .ok_or_else(|| UnknownAlgorithm(name.to_owned()))
    }
}

/// A name that is none of the algorithms'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm(pub String);

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ConvAlgorithm::ALL.map(|algorithm| algorithm.to_string());
        let UnknownAlgorithm(name) = self;
        write!(
            f,
            "unknown convolution algorithm '{name}'; there are {}",
            names.join(", ")
        )
    }
}

impl Error for UnknownAlgorithm {}

/// How algorithms are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlgorithmChoice {
    isa: Isa,
    forced: Option<ConvAlgorithm>,
}

impl AlgorithmChoice {
    /// The fastest algorithm for each shape.
    pub fn new(isa: Isa) -> Self {
        AlgorithmChoice { isa, forced: None }
    }

    /// This algorithm for all shapes that it can compute, and the fastest for the others.
    pub fn forcing(self, algorithm: ConvAlgorithm) -> Self {
        AlgorithmChoice {
            forced: Some(algorithm),
            ..self
        }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The algorithm of a forward pass.
    pub fn forward(&self, shape: &ConvShape) -> ConvAlgorithm {
        let geometry = &shape.geometry;
        let layout = Merged::new(geometry).forward_layout(self.isa, geometry);
        self.of_dense_or_grouped(geometry, &layout, &Problem::forward(shape))
    }

    /// The algorithms of a backward pass to data, each once: with a stride there are several
    /// products.
    pub fn backward_data(&self, shape: &ConvShape) -> Vec<ConvAlgorithm> {
        let geometry = &shape.geometry;
        let merged = Merged::new(geometry);
        let mut algorithms = Vec::new();
        for phase in Phase::all(geometry).filter(|phase| phase.taps() > 0) {
            let problem = phase.problem(shape);
            let layout = merged.backward_layout(self.isa, phase.taps());
            let algorithm = self.of_dense_or_grouped(geometry, &layout, &problem);
            if !problem.is_empty() && !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        }
        algorithms
    }

    /// The algorithm of a backward pass to weights.
    pub fn backward_weights(&self, shape: &ConvShape) -> ConvAlgorithm {
        let geometry = &shape.geometry;
        let problem = Problem::forward(shape);
        let layout = Merged::new(geometry).forward_layout(self.isa, geometry);
        let tile = WinogradTile::Four;
        let candidates = [
            Candidate {
                algorithm: ConvAlgorithm::Grouped,
                computes: geometry.is_depthwise(),
                pays: true,
            },
            Candidate {
                algorithm: ConvAlgorithm::Winograd(tile),
                computes: winograd_computes(&problem.window, &layout) && layout.groups == 1,
                pays: tile.pays(&layout, &problem)
                    && tile.count(&problem) >= tuning::WINOGRAD_REDUCTION_FEWEST_TILES,
            },
        ];
        self.first(candidates)
    }

    fn of_dense_or_grouped(
        &self,
        geometry: &ConvGeometry,
        layout: &BlockedLayout,
        problem: &Problem,
    ) -> ConvAlgorithm {
        if self
            .group_width(geometry, layout, &problem.window)
            .is_some()
        {
            ConvAlgorithm::Grouped
        } else {
            self.of_dense(layout, problem)
        }
    }

    /// The width of the groups of a convolution whose weights, of one of its products, are packed
    /// for [`ConvAlgorithm::Grouped`]; none if they are packed as dense matrices. The sizes of
    /// batch and images make no difference.
    pub(super) fn group_width(
        &self,
        geometry: &ConvGeometry,
        layout: &BlockedLayout,
        window: &Window,
    ) -> Option<usize> {
        let width = geometry.group_width()?;
        let grouped = match self.forced {
            Some(ConvAlgorithm::Grouped) => true,
            Some(ConvAlgorithm::Direct) => false,
            Some(ConvAlgorithm::Winograd(_)) if winograd_computes(window, layout) => false,
            _ => width <= geometry.widest_group(self.isa.lanes()),
        };
        grouped.then_some(width)
    }

    /// The algorithm of a product whose weights are packed as dense matrices.
    pub(super) fn of_dense(&self, layout: &BlockedLayout, problem: &Problem) -> ConvAlgorithm {
        let winograd = |tile: WinogradTile| Candidate {
            algorithm: ConvAlgorithm::Winograd(tile),
            computes: winograd_computes(&problem.window, layout),
            pays: tile.pays(layout, problem),
        };
        self.first([
            winograd(WinogradTile::Four),
            winograd(WinogradTile::Two),
            Candidate {
                algorithm: ConvAlgorithm::Strassen,
                computes: strassen_computes(problem, layout),
                pays: strassen_pays(problem, layout),
            },
        ])
    }

    /// Whether weights are transformed for tiles of 4×4 outputs when they are packed, as most
    /// batches use them, and they are few.
    pub(super) fn transforms_when_packed(&self, layout: &BlockedLayout, window: &Window) -> bool {
        let tile = WinogradTile::Four;
        let wanted = match self.forced {
            None => channels(layout) >= tile.fewest_channels(),
            Some(forced) => forced == ConvAlgorithm::Winograd(tile),
        };
        wanted
            && winograd_computes(window, layout)
            && layout.with_taps(1).len() <= tuning::WINOGRAD_EAGER_FLOATS
    }

    /// The forced algorithm if it is among those that compute the shape; otherwise the first that
    /// does and pays; otherwise the direct one, which computes everything.
    fn first<const N: usize>(&self, candidates: [Candidate; N]) -> ConvAlgorithm {
        let computing = || candidates.iter().filter(|candidate| candidate.computes);
        let forced = self.forced.filter(|&forced| {
            forced == ConvAlgorithm::Direct
                || computing().any(|candidate| candidate.algorithm == forced)
        });
        forced
            .or_else(|| {
                let mut paying = computing().filter(|candidate| candidate.pays);
                Some(paying.next()?.algorithm)
            })
            .unwrap_or(ConvAlgorithm::Direct)
    }
}

/// An algorithm other than the direct one.
struct Candidate {
    algorithm: ConvAlgorithm,
    /// Whether it can compute the shape at all.
    computes: bool,
    /// Whether it is the fastest.
    pays: bool,
}

/// The fewer of a group's input and output channels.
fn channels(layout: &BlockedLayout) -> usize {
    layout.group_in.min(layout.group_out)
}

/// Groups have to begin where channel blocks do.
fn winograd_computes(window: &Window, layout: &BlockedLayout) -> bool {
    window.kernel == [3, 3]
        && window.stride == [1, 1]
        && window.unrolled.is_none()
        && (layout.groups == 1 || layout.group_in.is_multiple_of(BLOCK))
}

/// The pixels of an image, which has more than one, are halved in the order in which they lie in
/// memory: that of their rows.
fn strassen_computes(problem: &Problem, layout: &BlockedLayout) -> bool {
    let [height, width] = problem.grid;
    let pair_of_blocks = 2 * tuning::VECTORS * layout.lanes();
    problem.pointwise
        && layout.groups == 1
        && layout.group_in.is_multiple_of(2 * BLOCK)
        && layout.group_out.is_multiple_of(pair_of_blocks)
        && problem.rows_are_adjacent()
        && height * width > problem.joined
}

fn strassen_pays(problem: &Problem, layout: &BlockedLayout) -> bool {
    let [height, width] = problem.grid;
    let pixels = problem.batch * height * width;
    let floats = pixels * (layout.group_in + layout.group_out);
    let fewest_channels = if floats <= tuning::STRASSEN_CACHED_FLOATS {
        tuning::STRASSEN_FEWEST_CACHED_CHANNELS
    } else {
        tuning::STRASSEN_FEWEST_CHANNELS
    };
    channels(layout) >= fewest_channels
        && pixels * layout.group_out >= tuning::STRASSEN_FEWEST_OUTPUTS
}
