//! Batches prepared by other threads, ahead of the consumer.
//!
//! A batch depends on the seed, the epoch and the images' numbers only: each
//! image's augmentation is drawn from a random stream of its own, and its
//! position in the batch is fixed before any thread prepares it. So the result
//! does not depend on the number of threads, their timing, or on resuming.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rand::RngExt;
use sdpoint_core::Preprocessing;

use crate::augment::{Augmentation, mix};
use crate::batch::{Batch, MISSING, Pool};
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::image::Image;
use crate::random::{Use, epoch_order, stream};
use crate::transform::Preparer;

/// The number of batches in preparation or finished, without the one being
/// consumed.
const AHEAD: usize = 3;

/// Pixels per task: one large image or many small ones.
const PIXELS_AT_A_TIME: usize = 16 * 1024;

/// The batches of an epoch of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The run's seed, of the order of the images and of their augmentation.
    pub seed: u64,
    /// The epoch's number, which gives it an order and draws of its own.
    pub number: u64,
    /// Batches already consumed, when an epoch is resumed in its middle.
    pub first_batch: usize,
}

/// An iterator over the batches of a data set. The last batch of an epoch has
/// the remaining images, possibly a single one; none is dropped. In training, an
/// unreadable image is replaced by the next readable one. After an error there
/// are no more batches. Dropping the loader stops its threads.
pub struct Loader {
    shared: Arc<Shared>,
    /// Number of the next batch to yield.
    next: usize,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    dataset: Dataset,
    /// One or several, of which one is drawn for each batch.
    preprocessings: Vec<Preprocessing>,
    /// Numbers of the images, in the order in which they are yielded.
    order: Vec<usize>,
    batch_size: usize,
    /// Seed and epoch of the augmentation; `None` to prepare images as for
    /// evaluation.
    augmentation: Option<(u64, u64)>,
    /// Augmentation beyond that of the preprocessing.
    more: Augmentation,
    unreadable: Unreadable,
    pool: Arc<Pool>,
    queue: Mutex<Queue>,
    /// Signalled when there is new work, or no more work.
    work: Condvar,
}

/// What happens to an unreadable image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    /// The next readable one takes its place, so that an epoch of training keeps
    /// its number of steps.
    Replaced,
    /// It is left out: in a measurement, an image is counted once or not at all.
    LeftOut,
}

/// Which images a loader yields, and how they are prepared.
struct Pass {
    order: Vec<usize>,
    augmentation: Option<(u64, u64)>,
    more: Augmentation,
    unreadable: Unreadable,
    first_batch: usize,
}

/// Batches in preparation.
struct Queue {
    /// Index in `order` of the next image to prepare.
    next_image: usize,
    /// Number of the first of `batches`.
    first: usize,
    batches: VecDeque<Arc<Slot>>,
    stopped: bool,
}

/// A batch in preparation.
struct Slot {
    filling: Mutex<Filling>,
    /// Signalled when all images are prepared.
    filled: Condvar,
}

struct Filling {
    /// `None` after it was yielded.
    batch: Option<Batch>,
    missing: usize,
    error: Option<DataError>,
}

impl Loader {
    /// Shuffled and augmented batches of an epoch.
    ///
    /// # Errors
    /// If the preprocessing is invalid, the batch size is zero, or threads
    /// cannot be started.
    pub fn train(
        dataset: &Dataset,
        preprocessing: &Preprocessing,
        batch_size: usize,
        threads: usize,
        epoch: Epoch,
    ) -> Result<Loader, DataError> {
        let one = std::slice::from_ref(preprocessing);
        Loader::train_mixed(dataset, one, batch_size, threads, epoch)
    }

    /// As [`train`](Self::train), with several preprocessings, such as for
    /// several sizes, one of which is drawn uniformly for each batch.
    ///
    /// # Errors
    /// As for [`train`](Self::train), or if there is no preprocessing.
    pub fn train_mixed(
        dataset: &Dataset,
        preprocessings: &[Preprocessing],
        batch_size: usize,
        threads: usize,
        epoch: Epoch,
    ) -> Result<Loader, DataError> {
        let none = Augmentation::default();
        Loader::train_augmented(dataset, preprocessings, none, batch_size, threads, epoch)
    }

    /// As [`train_mixed`](Self::train_mixed), with further augmentation. If it
    /// mixes images, batches say with what: [`Batch::mixed`].
    ///
    /// # Errors
    /// As for [`train_mixed`](Self::train_mixed), or if the augmentation is
    /// invalid.
    pub fn train_augmented(
        dataset: &Dataset,
        preprocessings: &[Preprocessing],
        augmentation: Augmentation,
        batch_size: usize,
        threads: usize,
        epoch: Epoch,
    ) -> Result<Loader, DataError> {
        let invalid = |error: crate::AugmentationError| DataError::Option(error.to_string());
        augmentation.check().map_err(invalid)?;
        let pass = Pass {
            order: epoch_order(dataset.len(), epoch.seed, epoch.number),
            augmentation: Some((epoch.seed, epoch.number)),
            more: augmentation,
            unreadable: Unreadable::Replaced,
            first_batch: epoch.first_batch,
        };
        Loader::new(dataset, preprocessings, batch_size, threads, pass)
    }

    /// Batches of the images with the given numbers, in that order, prepared as
    /// for prediction. Unreadable images are left out, so that a batch may have
    /// fewer images; empty batches are skipped.
    ///
    /// # Errors
    /// As for [`train`](Self::train), or if a number is out of range.
    pub fn evaluate(
        dataset: &Dataset,
        preprocessing: &Preprocessing,
        batch_size: usize,
        threads: usize,
        order: Vec<usize>,
    ) -> Result<Loader, DataError> {
        let augmentation = None;
        Loader::listed(
            dataset,
            preprocessing,
            batch_size,
            threads,
            order,
            augmentation,
        )
    }

    /// As [`evaluate`](Self::evaluate), but images are augmented as in an epoch
    /// of training. The draws of an image depend on the seed, the epoch and its
    /// number only. [`Epoch::first_batch`] is ignored.
    ///
    /// # Errors
    /// As for [`evaluate`](Self::evaluate).
    pub fn augmented(
        dataset: &Dataset,
        preprocessing: &Preprocessing,
        batch_size: usize,
        threads: usize,
        order: Vec<usize>,
        epoch: Epoch,
    ) -> Result<Loader, DataError> {
        let augmentation = Some((epoch.seed, epoch.number));
        Loader::listed(
            dataset,
            preprocessing,
            batch_size,
            threads,
            order,
            augmentation,
        )
    }

    /// Batches of listed images, without those that are unreadable.
    fn listed(
        dataset: &Dataset,
        preprocessing: &Preprocessing,
        batch_size: usize,
        threads: usize,
        order: Vec<usize>,
        augmentation: Option<(u64, u64)>,
    ) -> Result<Loader, DataError> {
        if let Some(index) = order.iter().find(|&&i| i >= dataset.len()) {
            return Err(DataError::Option(format!(
                "image {index} of a data set that has {}",
                dataset.len()
            )));
        }
        let pass = Pass {
            order,
            augmentation,
            more: Augmentation::default(),
            unreadable: Unreadable::LeftOut,
            first_batch: 0,
        };
        let one = std::slice::from_ref(preprocessing);
        Loader::new(dataset, one, batch_size, threads, pass)
    }

    fn new(
        dataset: &Dataset,
        preprocessings: &[Preprocessing],
        batch_size: usize,
        threads: usize,
        pass: Pass,
    ) -> Result<Loader, DataError> {
        let Pass {
            order,
            augmentation,
            more,
            unreadable,
            first_batch,
        } = pass;
        if batch_size == 0 {
            return Err(DataError::Option("a batch of no images".to_owned()));
        }
        if preprocessings.is_empty() {
            return Err(DataError::Option("no way to prepare images".to_owned()));
        }
        let mut preparers = Vec::new();
        for _ in 0..threads.max(1) {
            let each = preprocessings
                .iter()
                .map(|preprocessing| Ok(Preparer::new(preprocessing)?.with_augmentation(more)));
            preparers.push(each.collect::<Result<Vec<_>, DataError>>()?);
        }
        let shared = Shared {
            dataset: dataset.clone(),
            preprocessings: preprocessings.to_vec(),
            batch_size,
            augmentation,
            more,
            unreadable,
            pool: Arc::default(),
            queue: Mutex::new(Queue {
                next_image: first_batch.saturating_mul(batch_size).min(order.len()),
                first: first_batch,
                batches: VecDeque::new(),
                stopped: false,
            }),
            order,
            work: Condvar::new(),
        };
        let slots = (first_batch..shared.batches()).take(AHEAD);
        let slots = slots.map(|batch| shared.slot(batch)).collect();
        lock(&shared.queue).batches = slots;
        let mut loader = Loader {
            shared: Arc::new(shared),
            next: first_batch,
            threads: Vec::new(),
        };
        for preparer in preparers {
            let shared = Arc::clone(&loader.shared);
            let thread = thread::Builder::new().name("sdpoint-loader".to_owned());
            let thread = thread
                .spawn(move || shared.work(preparer))
                .map_err(|e| DataError::Loader(format!("a thread could not be started: {e}")))?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_batch()? {
                Ok(mut batch) => {
                    batch.close_gaps();
                    if batch.len() > 0 {
                        self.mix(&mut batch);
                        return Some(Ok(batch));
                    }
                }
                error => return Some(error),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.left();
        // Unreadable images may make whole batches disappear.
        let least = match self.shared.unreadable {
            Unreadable::Replaced => left,
            Unreadable::LeftOut => 0,
        };
        (least, Some(left))
    }
}

impl Loader {
    /// The number of remaining batches; when evaluating, an upper bound.
    pub fn left(&self) -> usize {
        self.shared.batches().saturating_sub(self.next)
    }

    /// Mixes the images of the batch that was taken last, if they are to be mixed.
    fn mix(&self, batch: &mut Batch) {
        let Shared {
            augmentation, more, ..
        } = &*self.shared;
        if let (Some((seed, epoch)), true) = (augmentation, more.mixes()) {
            let number = (self.next - 1) as u64;
            mix(batch, more, &mut stream(Use::Mixing, *seed, *epoch, number));
        }
    }

    /// The next batch, with gaps where images are unreadable.
    fn next_batch(&mut self) -> Option<Result<Batch, DataError>> {
        if self.next >= self.shared.batches() {
            return None;
        }
        let slot = Arc::clone(lock(&self.shared.queue).batches.front()?);
        let mut filling = lock(&slot.filling);
        while filling.missing > 0 {
            filling = slot
                .filled
                .wait(filling)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let batch = filling.batch.take()?;
        if let Some(error) = filling.error.take() {
            self.next = usize::MAX;
            self.shared.stop();
            return Some(Err(error));
        }
        drop(filling);

        self.next += 1;
        let mut queue = lock(&self.shared.queue);
        queue.batches.pop_front();
        queue.first += 1;
        let last = queue.first + queue.batches.len();
        if last < self.shared.batches() {
            queue.batches.push_back(self.shared.slot(last));
        }
        drop(queue);
        self.shared.work.notify_all();
        Some(Ok(batch))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // A thread's panic has been reported as its batch's error.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn batches(&self) -> usize {
        self.order.len().div_ceil(self.batch_size)
    }

    /// An empty slot for a batch of the epoch.
    fn slot(&self, batch: usize) -> Arc<Slot> {
        let len = self
            .batch_size
            .min(self.order.len() - batch * self.batch_size);
        let size = self.preprocessings[self.way(batch)].size;
        let input_len = size[0] * size[1] * crate::transform::CHANNELS;
        let batch = Batch::new(len, size, input_len, &self.pool);
        let filling = Filling {
            batch: Some(batch),
            missing: len,
            error: None,
        };
        Arc::new(Slot {
            filling: Mutex::new(filling),
            filled: Condvar::new(),
        })
    }

    /// The preprocessing of a batch.
    fn way(&self, batch: usize) -> usize {
        match (self.augmentation, self.preprocessings.len()) {
            (Some((seed, epoch)), 2..) => {
                let mut rng = stream(Use::Size, seed, epoch, batch as u64);
                rng.random_range(0..self.preprocessings.len() as u32) as usize
            }
            _ => 0,
        }
    }

    fn stop(&self) {
        lock(&self.queue).stopped = true;
        self.work.notify_all();
    }

    /// The loop of a worker thread.
    fn work(&self, mut preparers: Vec<Preparer>) {
        let mut inputs = Vec::new();
        let mut labels = Vec::new();
        while let Some((slot, images)) = self.take() {
            let preparer = &mut preparers[self.way(images.start / self.batch_size)];
            // Panics of decoders have become errors of their images. A bug of ours
            // must not leave the consumer waiting forever.
            let prepared = catch_unwind(AssertUnwindSafe(|| {
                self.prepare(images.clone(), preparer, &mut inputs, &mut labels)
            }))
            .unwrap_or_else(|_| Err(DataError::Loader("one of its threads panicked".to_owned())));

            let mut filling = lock(&slot.filling);
            match (prepared, &mut filling.batch) {
                (Ok(()), Some(batch)) => {
                    let at = images.start % self.batch_size;
                    let start = at * preparer.input_len();
                    batch.images[start..][..inputs.len()].copy_from_slice(&inputs);
                    batch.labels[at..][..labels.len()].copy_from_slice(&labels);
                }
                (Ok(()), None) => {}
                (Err(error), _) => {
                    filling.error.get_or_insert(error);
                }
            }
            filling.missing -= images.len();
            if filling.missing == 0 {
                slot.filled.notify_one();
            }
        }
    }

    /// The next images to prepare, as a range of `order`, and their batch. Waits
    /// while enough batches are in preparation.
    fn take(&self) -> Option<(Arc<Slot>, Range<usize>)> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stopped || queue.next_image >= self.order.len() {
                return None;
            }
            let batch = queue.next_image / self.batch_size;
            if let Some(slot) = queue.batches.get(batch - queue.first) {
                let slot = Arc::clone(slot);
                let [height, width] = self.preprocessings[self.way(batch)].size;
                let start = queue.next_image;
                let end = (start + (PIXELS_AT_A_TIME / (height * width)).max(1))
                    .min((batch + 1) * self.batch_size)
                    .min(self.order.len());
                queue.next_image = end;
                return Some((slot, start..end));
            }
            queue = self
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn prepare(
        &self,
        images: Range<usize>,
        preparer: &mut Preparer,
        inputs: &mut Vec<f32>,
        labels: &mut Vec<u32>,
    ) -> Result<(), DataError> {
        let input_len = preparer.input_len();
        inputs.resize(images.len() * input_len, 0.0);
        labels.clear();
        for (&index, input) in self.order[images]
            .iter()
            .zip(inputs.chunks_exact_mut(input_len))
        {
            let prepare = |image: &Image| match self.augmentation {
                Some((seed, epoch)) => {
                    let mut rng = stream(Use::Augmentation, seed, epoch, index as u64);
                    preparer.augment(image, &mut rng, input)
                }
                None => preparer.prepare(image, input),
            };
            let sample = match self.unreadable {
                Unreadable::Replaced => Some(self.dataset.sample_prepared(index, prepare)?),
                Unreadable::LeftOut => self.dataset.usable(index, prepare)?,
            };
            labels.push(sample.map_or(MISSING, |sample| sample.label));
        }
        Ok(())
    }
}

/// Ignores poisoning: no thread panics while it holds a lock, and the guarded
/// state is consistent between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
