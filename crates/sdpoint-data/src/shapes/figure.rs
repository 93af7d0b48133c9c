//! The ten figures, each within the unit circle about the origin.

use rand::{Rng, RngExt};

use super::turn::{TURN, direction};

/// A figure, as what it covers.
pub(super) enum Figure {
    /// Between two circles; a disc where the inner one has no radius.
    Round { hole: f32 },
    /// The intersection of half-planes: a regular polygon, less a smaller one
    /// within, whose size is `hole` of it.
    Polygon { sides: Sides, hole: f32 },
    /// The star that the sides of a regular polygon make when prolonged until
    /// they meet.
    Star { sides: Sides },
    /// Two bars across each other, of this half width.
    Cross { half_width: f32 },
}

/// Lines around the origin: their outward normals and common distance.
pub(super) struct Sides {
    normals: Vec<[f32; 2]>,
    distance: f32,
}

impl Sides {
    /// `count` lines at the distance that is the cosine of `steps` of a turn.
    fn new(count: usize, steps: usize) -> Sides {
        let normal = |side| direction((side * TURN / count) as u16);
        Sides {
            normals: (0..count).map(normal).collect(),
            distance: direction(steps as u16)[0],
        }
    }

    /// The sides of a polygon with corners on the unit circle.
    fn of_polygon(count: usize) -> Sides {
        Sides::new(count, TURN / (2 * count))
    }

    /// The sides that, prolonged, meet on the unit circle.
    fn of_star(count: usize) -> Sides {
        Sides::new(count, TURN / count)
    }

    /// How many of the lines, drawn closer by `scale`, have the point beyond.
    fn beyond(&self, x: f32, y: f32, scale: f32) -> usize {
        let distance = self.distance * scale;
        self.normals
            .iter()
            .filter(|[nx, ny]| nx * x + ny * y > distance)
            .count()
    }
}

impl Figure {
    /// The classes' names, in the order of their numbers.
    pub const NAMES: [&str; 10] = [
        "disc", "ring", "triangle", "square", "frame", "pentagon", "hexagon", "star5", "star6",
        "cross",
    ];

    /// The figure of a class, its proportions drawn at random.
    pub fn new(class: u32, rng: &mut impl Rng) -> Figure {
        let solid = |corners| Figure::Polygon {
            sides: Sides::of_polygon(corners),
            hole: 0.0,
        };
        match Figure::NAMES[class as usize] {
            "ring" => Figure::Round {
                hole: rng.random_range(0.25..0.5),
            },
            "triangle" => solid(3),
            "square" => solid(4),
            "frame" => Figure::Polygon {
                sides: Sides::of_polygon(4),
                hole: rng.random_range(0.25..0.5),
            },
            "pentagon" => solid(5),
            "hexagon" => solid(6),
            "star5" => Figure::Star {
                sides: Sides::of_star(5),
            },
            "star6" => Figure::Star {
                sides: Sides::of_star(6),
            },
            "cross" => Figure::Cross {
                half_width: rng.random_range(0.18..0.32),
            },
            _ => Figure::Round { hole: 0.0 },
        }
    }

    /// Whether the figure covers the point.
    pub fn contains(&self, x: f32, y: f32) -> bool {
        match self {
            Figure::Round { hole } => {
                let square = x * x + y * y;
                square <= 1.0 && square >= hole * hole
            }
            Figure::Polygon { sides, hole } => {
                sides.beyond(x, y, 1.0) == 0 && sides.beyond(x, y, *hole) > 0
            }
            // A point of a ray is beyond the one side that the ray stands on.
            Figure::Star { sides } => sides.beyond(x, y, 1.0) <= 1,
            Figure::Cross { half_width } => {
                let (x, y) = (x.abs(), y.abs());
                x.max(y) <= 0.95 && x.min(y) <= *half_width
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha8Rng;
    use rand::SeedableRng;

    /// The part of the square from -1 to 1 that each figure covers.
    fn area(name: &str) -> f64 {
        const GRID: i32 = 400;
        let class = Figure::NAMES.iter().position(|&n| n == name).unwrap();
        let figure = Figure::new(class as u32, &mut ChaCha8Rng::seed_from_u64(1));
        let at = |i: i32| (i as f32 + 0.5) / GRID as f32 * 2.0 - 1.0;
        let cells = (0..GRID * GRID).filter(|c| figure.contains(at(c % GRID), at(c / GRID)));
        cells.count() as f64 / f64::from(GRID * GRID) * 4.0
    }

    /// Closed forms: a regular n-gon in the unit circle has n/2 · sin(2π/n),
    /// the pentagram 1.12257, the hexagram √3.
    #[test]
    fn figures_have_the_areas_of_geometry() {
        let polygon = |n: f64| n / 2.0 * (std::f64::consts::TAU / n).sin();
        for (name, expected) in [
            ("disc", std::f64::consts::PI),
            ("triangle", polygon(3.0)),
            ("square", polygon(4.0)),
            ("pentagon", polygon(5.0)),
            ("hexagon", polygon(6.0)),
            ("star5", 1.12257),
            ("star6", 3.0_f64.sqrt()),
        ] {
            assert!(
                (area(name) - expected).abs() < 0.02,
                "{name}: {} {expected}",
                area(name)
            );
        }
    }

    #[test]
    fn holes_are_open_and_no_more_than_a_quarter() {
        for (holed, solid) in [("ring", "disc"), ("frame", "square")] {
            let hole = 1.0 - area(holed) / area(solid);
            assert!((0.06..0.25).contains(&hole), "{holed}: {hole}");
        }
    }
}
