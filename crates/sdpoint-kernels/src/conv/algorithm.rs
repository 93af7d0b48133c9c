//! The choice of the algorithm that computes a convolution.
//!
//! The choice depends on the shape (batch size included) and the instruction set only, so that
//! neither the number of threads nor earlier batches change a bit of a result. This file is the
//! only place that makes it. Each algorithm is a [`Candidate`] with two predicates: `computes`,
//! whether it supports a shape, and `pays`, whether it is the fastest there; the thresholds are in
//! `tuning.rs`.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use super::gather::{BLOCK, ConvWindow};
use super::geometry::{ConvGeometry, ConvShape};
use super::layout::BlockedLayout;
use super::merge::Merged;
use super::problem::{Phase, Problem};
use super::tuning;
use crate::isa::Isa;

/// An algorithm that computes a convolution or one of its gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvAlgorithm {
    /// An implicit GEMM with all multiplications of the definition; computes every shape.
    Direct,
    /// Vectors across several groups of one (depth-wise), two, four or eight channels.
    Grouped,
    /// Winograd's minimal filtering F(m×m, 3×3), for 3×3 kernels with stride 1.
    Winograd(WinogradTile),
    /// One level of Strassen's algorithm, for 1×1 kernels.
    Strassen,
}

/// The size of a tile of Winograd's algorithm: m×m outputs in F(m×m, 3×3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WinogradTile {
    /// F(2×2, 3×3): 16 multiplications for 4 outputs instead of 36.
    Two,
    /// F(4×4, 3×3): 36 multiplications for 16 outputs instead of 144.
    Four,
}

impl WinogradTile {
    /// m: the rows of outputs of a tile, and the columns.
    pub(super) const fn outputs(self) -> usize {
        match self {
            WinogradTile::Two => 2,
            WinogradTile::Four => 4,
        }
    }

    /// Interpolation points, each with a GEMM of its own: (m + 2)², as many as a tile has inputs.
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

    fn fewest_tiles(self, channels: usize) -> usize {
        match self {
            WinogradTile::Two => tuning::WINOGRAD_TWO_FEWEST_TILES,
            WinogradTile::Four => tuning::winograd_four_fewest_tiles(channels),
        }
    }

    /// Tiles that cover the outputs of all images.
    fn count(self, problem: &Problem) -> usize {
        let [rows, columns] = problem.grid.map(|size| size.div_ceil(self.outputs()));
        problem.batch * rows * columns
    }

    /// Whether the saved multiplications outweigh the transforms.
    fn saves(self, layout: &BlockedLayout, problem: &Problem) -> bool {
        let [height, width] = problem.grid;
        let outputs = problem.batch * height * width;
        let covered = self.count(problem) * self.outputs() * self.outputs();
        let [most, of] = tuning::WINOGRAD_MOST_COVERED;
        channels(layout) >= self.fewest_channels() && covered * of <= outputs * most
    }

    /// Whether that outweighs the larger weights, too.
    fn pays(self, layout: &BlockedLayout, problem: &Problem) -> bool {
        self.saves(layout, problem) && self.count(problem) >= self.fewest_tiles(channels(layout))
    }
}

impl ConvAlgorithm {
    /// All algorithms in order of preference: the first that supports a shape and pays off is
    /// chosen.
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

/// The error for a name that is not an algorithm's; holds the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm(pub String);

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ConvAlgorithm::ALL.map(|algorithm| algorithm.to_string());
        let UnknownAlgorithm(name) = self;
        write!(
            f,
            "unknown convolution algorithm '{name}'; use one of {}",
            names.join(", ")
        )
    }
}

impl Error for UnknownAlgorithm {}

/// The rule by which algorithms are chosen: for an instruction set, and possibly with one
/// algorithm forced, or without those that need more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlgorithmChoice {
    isa: Isa,
    forced: Option<ConvAlgorithm>,
    low_memory: bool,
}

impl AlgorithmChoice {
    /// Chooses the fastest algorithm for each shape.
    pub fn new(isa: Isa) -> Self {
        AlgorithmChoice {
            isa,
            forced: None,
            low_memory: false,
        }
    }

    /// Chooses `algorithm` for all shapes that it supports, and the fastest for the others.
    pub fn forcing(self, algorithm: ConvAlgorithm) -> Self {
        AlgorithmChoice {
            forced: Some(algorithm),
            ..self
        }
    }

    /// Chooses the fastest algorithm of those that keep the weights in one form only, which
    /// Winograd's and Strassen's do not.
    pub fn with_low_memory(self) -> Self {
        AlgorithmChoice {
            low_memory: true,
            ..self
        }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The algorithm for a forward pass.
    pub fn forward(&self, shape: &ConvShape) -> ConvAlgorithm {
        let geometry = &shape.geometry;
        let layout = Merged::new(geometry).forward_layout(self.isa, geometry);
        self.of_dense_or_grouped(geometry, &layout, &Problem::forward(shape))
    }

    /// The algorithms for a backward pass to data, without duplicates. With a stride above 1 there
    /// are several GEMMs, whose algorithms may differ.
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

    /// The algorithm for a backward pass to weights.
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
                // Groups merged to a dense layout have fewer weights than it.
                computes: winograd_computes(&problem.window, &layout) && geometry.groups == 1,
                pays: tile.saves(&layout, &problem)
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

    /// The channels per group if the weights are packed for [`ConvAlgorithm::Grouped`], or `None`
    /// if they are packed as dense matrices. Independent of the sizes of batch and images.
    pub(super) fn group_width(
        &self,
        geometry: &ConvGeometry,
        layout: &BlockedLayout,
        window: &ConvWindow,
    ) -> Option<usize> {
        let width = geometry.group_width()?;
        let grouped = match self.forced {
            Some(ConvAlgorithm::Grouped) => true,
            Some(ConvAlgorithm::Direct) => false,
            Some(ConvAlgorithm::Winograd(_)) if winograd_computes(window, layout) => false,
            _ => {
                let shares = geometry.window().shares_three_columns();
                width <= tuning::widest_group(shares, self.isa.lanes())
            }
        };
        grouped.then_some(width)
    }

    /// The algorithm for a problem whose weights are packed as dense matrices.
    pub(super) fn of_dense(&self, layout: &BlockedLayout, problem: &Problem) -> ConvAlgorithm {
        let winograd = |tile: WinogradTile| Candidate {
            algorithm: ConvAlgorithm::Winograd(tile),
            computes: winograd_computes(&problem.window, layout),
            pays: !self.low_memory && tile.pays(layout, problem),
        };
        self.first([
            winograd(WinogradTile::Four),
            winograd(WinogradTile::Two),
            Candidate {
                algorithm: ConvAlgorithm::Strassen,
                computes: strassen_computes(problem, layout),
                pays: !self.low_memory && strassen_pays(problem, layout),
            },
        ])
    }

    /// Whether weights are transformed for F(4×4, 3×3) at packing time rather than by the first
    /// product that needs them: where they are small, and have enough channels for the algorithm.
    /// Whether a product uses them depends on its number of tiles, too.
    pub(super) fn transforms_when_packed(
        &self,
        layout: &BlockedLayout,
        window: &ConvWindow,
    ) -> bool {
        let tile = WinogradTile::Four;
        let wanted = match self.forced {
            None => !self.low_memory && channels(layout) >= tile.fewest_channels(),
            Some(forced) => forced == ConvAlgorithm::Winograd(tile),
        };
        wanted
            && winograd_computes(window, layout)
            && layout.with_taps(1).len() <= tuning::WINOGRAD_EAGER_FLOATS
    }

    /// The forced algorithm if it supports the shape; otherwise the first candidate that supports
    /// it and pays off; otherwise [`ConvAlgorithm::Direct`], which supports every shape.
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

/// An alternative to the direct algorithm.
struct Candidate {
    algorithm: ConvAlgorithm,
    /// Whether it supports the shape.
    computes: bool,
    /// Whether it is faster than those after it.
    pays: bool,
}

/// The smaller of the numbers of input and output channels of a group.
fn channels(layout: &BlockedLayout) -> usize {
    layout.group_in.min(layout.group_out)
}

/// Whether Winograd's algorithm supports a problem. Its input transform works on whole channel
/// blocks, so each group must begin at the start of one.
fn winograd_computes(window: &ConvWindow, layout: &BlockedLayout) -> bool {
    window.kernel == [3, 3]
        && window.stride == [1, 1]
        && window.unrolled.is_none()
        && (layout.groups == 1 || layout.group_in.is_multiple_of(BLOCK))
}

/// Whether Strassen's algorithm supports a problem. It halves the input channels, which must then
/// be whole channel blocks, the output channels, whole panels, and the pixels of each image in
/// memory order, so that rows must be adjacent, and at least two pixels.
fn strassen_computes(problem: &Problem, layout: &BlockedLayout) -> bool {
    let [height, width] = problem.grid;
    tuning::has_strassen(layout.registers())
        && problem.pointwise
        && layout.groups == 1
        && layout.group_in.is_multiple_of(2 * BLOCK)
        && layout.group_out.is_multiple_of(2 * layout.widest_panel())
        && problem.rows_are_adjacent()
        && height * width > problem.images_per_row
}

/// Whether the saved product outweighs the additions, for a problem that Strassen's algorithm
/// supports.
fn strassen_pays(problem: &Problem, layout: &BlockedLayout) -> bool {
    let [height, width] = problem.grid;
    let pixels = problem.batch * height * width;
    channels(layout) >= tuning::STRASSEN_FEWEST_CHANNELS
        && pixels >= tuning::strassen_fewest_pixels(layout.group_in * layout.group_out)
}
