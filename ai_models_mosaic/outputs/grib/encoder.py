"""Fields of members and products to GRIB messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from ...arrays import FloatArray
from ...geometry.grid import LatLonGrid, Region
from ...params import CHANNEL_FIELDS, Field
from ..placeholders import PRODUCT
from ..products import Product
from .keys import Labels, member_keys, needs_large, product_keys, refuse_reserved, step_keys
from .templates import Base, EncodedMessage, Template


class GribEncoder:
    """Encodes fields from one prepared template per field; for one thread at a time.

    Parameters
    ----------
    grid : LatLonGrid or Region
        Geometry of the fields; regular, with pole rows, from Greenwich, or a part of that.
    labels : Labels
        What all messages have in common.
    channels : sequence of int or None
        Channels to encode of members; None for all.
    products : sequence of (Product, Field)
        What to encode beside members.
    product_members : int
        Members that products are made from.

    Raises
    ------
    OutputError
        If ecCodes refuses one of the user's keys.
    """

    def __init__(
        self,
        grid: LatLonGrid | Region,
        labels: Labels,
        channels: Sequence[int] | None = None,
        products: Sequence[tuple[Product, Field]] = (),
        product_members: int = 0,
    ) -> None:
        refuse_reserved(labels.metadata)
        self.region = grid if isinstance(grid, Region) else Region.whole(grid)
        self.channels = tuple(range(len(CHANNEL_FIELDS)) if channels is None else channels)
        self.labels = labels
        self._members: dict[tuple[int, bool], Template] = {}
        self._products: dict[tuple[Product, Field], Template] = {}
        try:
            self._prepare_members()
            self._prepare_products(products, product_members)
        except BaseException:
            self.close()
            raise

    def _prepare_members(self) -> None:
        size = self.labels.ensemble_size
        for large in (False, True) if size is None else (needs_large(size, size),):
            with Base(self.region, self.labels, member_keys(size, large=large)) as base:
                for channel in self.channels:
                    self._members[channel, large] = Template(CHANNEL_FIELDS[channel], base, self.labels)

    def _prepare_products(self, products: Sequence[tuple[Product, Field]], members: int) -> None:
        # A type of the user's is that of members.
        metadata = {key: value for key, value in self.labels.metadata.items() if key not in ("type", "dataType")}
        labels = replace(self.labels, metadata=metadata)
        for product in dict.fromkeys(product for product, _ in products):
            with Base(self.region, labels, product_keys(product, members)) as base:
                for field in (field for other, field in products if other == product):
                    self._products[product, field] = Template(field, base, labels)

    @property
    def products(self) -> tuple[tuple[Product, Field], ...]:
        """What is encoded beside members, in the order of `product_messages`."""
        return tuple(self._products)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Names that messages have beside GRIB keys."""
        return (PRODUCT,) if self._products else ()

    def twin(self) -> GribEncoder:
        """Another that encodes the same, for another thread; to be made before either is used."""
        made = copy(self)
        made._members = {key: template.twin() for key, template in self._members.items()}
        made._products = {key: template.twin() for key, template in self._products.items()}
        return made

    def encode(self, channel: int, member: int, lead_time_hours: int, values: FloatArray) -> EncodedMessage:
        """One field of one member.

        Parameters
        ----------
        channel : int
            Index in `channels.CHANNELS`.
        member : int
            From 1.
        lead_time_hours : int
            Hours since the initial time.
        values : array (point,)
            From north to south, each row from west to east.
        """
        large = needs_large(member, self.labels.ensemble_size)
        return self._members[channel, large].fill(values, step_keys(lead_time_hours, member))

    def encode_product(
        self, product: Product, field: Field, lead_time_hours: int, values: FloatArray
    ) -> EncodedMessage:
        """One product of one field.

        Parameters
        ----------
        product : Product
            Which product.
        field : Field
            Of which field.
        lead_time_hours : int
            Hours since the initial time.
        values : array (point,)
            From north to south, each row from west to east.
        """
        message = self._products[product, field].fill(values, step_keys(lead_time_hours))
        message.named[PRODUCT] = product.name
        return message

    def first_message(self, member: int, lead_time_hours: int = 0, channel: int | None = None) -> EncodedMessage:
        """A member's field of a lead time, the first if no channel is named, without its values."""
        channel = self.channels[0] if channel is None else channel
        return self.encode(channel, member, lead_time_hours, np.zeros(self.region.size))

    def product_messages(self, lead_time_hours: int = 0) -> Iterator[EncodedMessage]:
        """Every product's message of a lead time, without its values."""
        for product, field in self._products:
            yield self.encode_product(product, field, lead_time_hours, np.zeros(self.region.size))

    def close(self) -> None:
        """Give the templates back to ecCodes."""
        for template in (*self._members.values(), *self._products.values()):
            template.release()
        self._members.clear()
        self._products.clear()

    def __enter__(self) -> GribEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
