"""What iris makes of a NetCDF file, as JSON: run with an interpreter that has it, which need not have this package."""

import json
import sys

import iris

iris.FUTURE.date_microseconds = True


def told(cube):
    """Dimensions, scalar coordinates, cell methods and values of a cube."""
    return {
        "dimensions": [coordinate.name() for coordinate in cube.coords(dim_coords=True)],
        "scalars": {each.name(): float(each.points[0]) for each in cube.coords(dimensions=())},
        "forecast_period": cube.coord("forecast_period").points.tolist(),
        "times": [str(cell.point)[:13] for cell in cube.coord("time").cells()],
        "cell_methods": [str(method) for method in cube.cell_methods],
        "values": cube.data.tolist(),
    }


print(json.dumps({cube.var_name: told(cube) for cube in iris.load(sys.argv[1])}))
