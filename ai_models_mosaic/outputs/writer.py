"""Where a forecast goes, step by step: members and products, as GRIB, Zarr and NetCDF."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from ..arrays import Float32Array
from ..errors import OutputError, ResumeError
from ..params import Field
from ..state import ForecastStep
from .calibration import MemberMover
from .clipping import clipped
from .grib.earlier import EarlierMembers
from .grib.files import MessageFiles, abandon_files, close_files
from .grib.keys import Labels
from .grib.output import GribOutput, OnMessage
from .plan import OutputPlan
from .products import Product, compute
from .queue import Commit, OrderedQueue, usual_workers
from .store.folder import StoreFolder
from .store.format2 import GROUP
from .store.netcdf import convert
from .store.zarr import ZarrOutput
from .variance import parts_of

LOG = logging.getLogger(__name__)


class StepCollector:
    """Gathers what products need of all members of a step.

    Parameters
    ----------
    plan : OutputPlan
        Says which members and channels, and where.
    """

    def __init__(self, plan: OutputPlan) -> None:
        self._index = {member: index for index, member in enumerate(plan.members)}
        self._channels, self._region = list(plan.channels), plan.region
        self._values: Float32Array | None = None
        self._missing: set[int] = set()

    def add(self, forecast: ForecastStep) -> Float32Array | None:
        """Take some members; returns all of the step when the last has come.

        Parameters
        ----------
        forecast : ForecastStep
            On the whole grid.

        Returns
        -------
        float32 array (member, channel, lon, lat) or None
            In the order of the run's members and the plan's channels, on its region.
        """
        if self._values is None:
            shape = (len(self._index), len(self._channels), *self._region.shape)
            self._values, self._missing = np.empty(shape, dtype=np.float32), set(self._index)
        for member, fields in zip(forecast.members, forecast.values, strict=True):
            taken = self._region.take(np.moveaxis(fields, -1, 0)[self._channels])
            self._values[self._index[member]] = taken
            self._missing.discard(member)
        if self._missing:
            return None
        complete, self._values = self._values, None
        return complete


class Outputs:
    """Writes what a plan says; files bear their names when the run is complete.

    Parameters
    ----------
    plan : OutputPlan
        What goes where.
    labels : Labels
        What all messages have in common.
    on_message : callable or None
        Called with every GRIB message's MARS keys and file, in the order of messages, from another thread.
    resuming : bool
        Whether `resume` follows: what an unfinished run left is kept until then.
    run : str or None
        Digest of what the run is, which stores carry.
    earlier : sequence of Path
        GRIB files of members of the plan that are not made again; the others are to be written here.

    Raises
    ------
    OutputError
        If something cannot be created.
    """

    def __init__(
        self,
        plan: OutputPlan,
        labels: Labels,
        on_message: OnMessage | None = None,
        *,
        resuming: bool = False,
        run: str | None = None,
        earlier: Sequence[Path] = (),
    ) -> None:
        self._plan, self._labels, self._resuming, self._run = plan, labels, resuming, run
        self._lead_times = frozenset(plan.lead_times_hours)
        self._collector = StepCollector(plan)
        self._mover = MemberMover(plan.options.calibration, plan.members)
        workers = usual_workers() if plan.options.workers is None else plan.options.workers
        self._messages = MessageFiles()
        self._members = self._products = None
        self._encoders = ExitStack()
        self._earlier: EarlierMembers | None = None
        self._lead_times_taken: set[int] = set()
        if plan.path is not None and plan.options.members:
            encoder = self._encoders.enter_context(plan.encoder(labels))
            self._members = GribOutput(plan.path, encoder, on_message, max(1, workers), self._messages)
            self._members.check_writable(plan.members, plan.lead_times_hours)
            if earlier:
                self._earlier = self._encoders.enter_context(closing(EarlierMembers(earlier, plan.encoder(labels))))
        if plan.products_path is not None:
            encoder = self._encoders.enter_context(plan.product_encoder(labels))
            self._products = GribOutput(plan.products_path, encoder, on_message, max(1, workers), self._messages)
        store = plan.store_path(labels)
        self._store = None if store is None or resuming else ZarrOutput(store, plan.layout(labels), run=run)
        self._makes_products = bool(plan.products) and (self._products is not None or store is not None)
        self._files: list[Path] = []
        self._ended = False
        self._queue = OrderedQueue(workers)

    @property
    def paths(self) -> list[Path]:
        """Every file written; complete after `close`."""
        return [*self._messages.paths, *self._files]

    def write(self, forecast: ForecastStep) -> None:
        """Take some members of a step; products follow the last of its members.

        Returns before all of it is written. The arrays must not change afterwards.

        Parameters
        ----------
        forecast : ForecastStep
            On the whole grid.

        Raises
        ------
        OutputError
            If something before it could not be written.
        """
        if forecast.lead_time_hours not in self._lead_times:
            return
        whole = self._mover.add(forecast)
        if whole is not None:
            self._write(whole)

    def _write(self, forecast: ForecastStep) -> None:
        """Write members as they are to be written, and products with the last of them."""
        self._take_earlier(forecast.lead_time_hours)
        forecast = clipped(forecast) if self._plan.options.clip_humidity else forecast
        if self._plan.options.members:
            self._write_members(forecast)
        if self._makes_products:
            values = self._collector.add(forecast)
            if values is not None:
                self.write_products(forecast.lead_time_hours, values)

    def recall(self, forecast: ForecastStep) -> None:
        """Take members of a step that were written before the run was interrupted within it.

        The products of the step need them, too.

        Parameters
        ----------
        forecast : ForecastStep
            On the whole grid.
        """
        self._lead_times_taken.add(forecast.lead_time_hours)
        if forecast.lead_time_hours not in self._lead_times:
            return
        if self._mover.moves:
            # Nothing of a step is written before all of it is there.
            self._mover.add(forecast)
        elif self._makes_products:
            self._collector.add(clipped(forecast) if self._plan.options.clip_humidity else forecast)

    def write_products(self, lead_time_hours: int, values: Float32Array) -> None:
        """Make and write the products of a step.

        Parameters
        ----------
        lead_time_hours : int
            Hours since the initial time.
        values : float32 array (member, channel, lon, lat)
            Of all members, the plan's channels and region.

        Raises
        ------
        OutputError
            If something before it could not be written.
        """
        by_field: dict[Field, list[Product]] = {}
        for product, field in self._plan.products:
            by_field.setdefault(field, []).append(product)
        index_of = {channel: index for index, channel in enumerate(self._plan.channels)}
        for field, products in by_field.items():
            where = [index_of[channel] for channel in field.channels]
            self._queue.put(partial(self._make_products, lead_time_hours, field, products, values, where))

    def mark(self) -> Callable[[], Mapping[str, int]]:
        """Note where all that was taken so far ends.

        Returns
        -------
        callable
            Brings that to disk, beside what is written afterwards, and gives the length in bytes of every GRIB file
            there, by the name that it will have. It raises OutputError if something cannot be written.

        Raises
        ------
        OutputError
            If something before it could not be written.
        """
        positions = self._queue.mark(self._messages.positions)

        def reached() -> Mapping[str, int]:
            found = positions.result()
            self._messages.flush()
            if self._store is not None:
                self._store.flush()
            return found

        return reached

    def resume(self, positions: Mapping[str, int], *, finished: bool = False) -> None:
        """Go on with what an unfinished run left, cutting off what came after these positions.

        What it wrote to a store after them is written again, to the same values.

        Parameters
        ----------
        positions : mapping of str to int
            As what `mark` returns gave them.
        finished : bool
            The run had written everything, so that some files may have their final names.

        Raises
        ------
        OutputError
            If a file or store is gone, or a file is shorter than it was.
        ResumeError
            If a file is none of the plan's.
        """
        self._refuse_foreign(positions)
        for output in self._grib[:1]:
            output.resume(positions, finished=finished)
        store = self._plan.store_path(self._labels)
        if store is None:
            return
        netcdf = list(self._plan.netcdf_files(self._labels))
        if finished and store != self._plan.zarr_path(self._labels) and all(file.exists() for file in netcdf):
            scratch = StoreFolder(store)
            if not (scratch.partial / GROUP).exists():
                # A death after the files were made, when the store that they were made from was removed.
                scratch.discard()
                self._files += netcdf
                return
        self._store = ZarrOutput(store, self._plan.layout(self._labels), run=self._run, resume=True, finished=finished)

    def close(self) -> None:
        """Write what is left, and give all files their names.

        Raises
        ------
        OutputError
            If something could not be written.
        """
        if self._ended:
            return
        self._mover.close()
        self._queue.close()
        for output in self._grib:
            output.release()
        if (self._resuming or self._earlier) and self._messages.messages != self._plan.messages:
            left = "an unfinished run left" if self._resuming else "there was of the ensemble"
            raise OutputError(
                f"expected {self._plan.messages} messages in all files, got {self._messages.messages}: what {left} was "
                f"not whole. Run without {'--resume' if self._resuming else '--extend'}"
            )
        close_files(self._messages)
        if self._store is not None:
            self._finish_store(self._store)
        self._encoders.close()
        self._ended = True

    def abort(self) -> None:
        """End without giving files their names; what is in them is whole."""
        if self._ended:
            return
        self._queue.abort()
        for output in self._grib:
            output.release()
        abandon_files(self._messages)
        if self._store is not None:
            self._store.release()
            if not self._store.is_named and self._store.place.exists():
                LOG.error("The run did not finish; what it wrote is in %s", self._store.place)
        self._encoders.close()
        self._ended = True

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise

    @property
    def _grib(self) -> list[GribOutput]:
        return [output for output in (self._members, self._products) if output is not None]

    def _refuse_foreign(self, positions: Mapping[str, int]) -> None:
        """Refuse a record that names other files than those that are written: they would be cut and renamed."""
        unknown, lead_times = {Path(name) for name in positions}, self._plan.lead_times_hours
        if unknown and self._members is not None:
            unknown.difference_update(self._members.paths_of_members(self._plan.members, lead_times))
        if unknown and self._products is not None:
            unknown.difference_update(self._products.paths_of_products(lead_times))
        if unknown:
            raise ResumeError(
                f"the state of the unfinished run names {min(unknown)}, which this run does not write: it was changed. "
                "Run without --resume"
            )

    def _take_earlier(self, lead_time_hours: int) -> None:
        """Have the members that were written before stand in front of those that follow."""
        if self._members is None or self._earlier is None or lead_time_hours in self._lead_times_taken:
            return
        self._lead_times_taken.add(lead_time_hours)
        commit = partial(self._members.append_earlier, self._earlier, lead_time_hours)
        self._queue.put(lambda: commit)

    def _write_members(self, forecast: ForecastStep) -> None:
        if self._members is not None:
            for job in self._members.jobs(forecast):
                self._queue.put(job)
        if self._store is not None:
            for member, fields in zip(forecast.members, forecast.values, strict=True):
                self._queue.put(partial(self._store.write_member, forecast.lead_time_hours, member, fields))

    def _make_products(
        self,
        lead_time_hours: int,
        field: Field,
        products: Sequence[Product],
        values: Float32Array,
        where: Sequence[int],
    ) -> Commit | None:
        members = field.of(values[:, where])
        usual = [product for product in products if not product.starts]
        made = list(zip(usual, compute(usual, members), strict=True))
        if self._store is not None:
            parts = parts_of(products, members, self._plan.members, self._plan.starts)
            for product, computed in [*made, *parts]:
                self._store.write_product(lead_time_hours, product, field, computed)
        if self._products is None or not made:
            return None
        return self._products.encode_products(field, made, lead_time_hours)

    def _finish_store(self, store: ZarrOutput) -> None:
        store.complete()
        for netcdf, part in self._plan.netcdf_files(self._labels).items():
            # Before the store has its name: until then nobody else may write to it.
            if not (store.is_named and netcdf.exists()):
                convert(store.place, netcdf, self._plan.layout(self._labels), part)
                LOG.info("Wrote %s", netcdf)
            self._files.append(netcdf)
        if self._plan.options.zarr is None:
            store.remove()
        else:
            self._files.append(store.finish())
            LOG.info("Wrote %s", store.path)
