"""A QGIS Processing algorithm that sharpens a PAN and an MS layer with the installed `pansharpen`.

Put it into the folder of Processing scripts (Processing Toolbox, Scripts, Add Script to Toolbox). It starts the program
in a process of its own and imports nothing of it, so QGIS's Python needs neither torch nor a certain version.
"""

import os
import re
import subprocess

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

SECONDS_BETWEEN_LOOKS = 0.5
OF_QGIS = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA")
"""Variables by which QGIS finds its own Python and GDAL, and another program the wrong ones."""


class Pansharpen(QgsProcessingAlgorithm):
    """`pansharpen run`; what the dialog does not ask for can be given as further options."""

    PAN, MS, OUTPUT = "PAN", "MS", "OUTPUT"
    MODEL, COREGISTER, BAND_NAMES, OPTIONS, PROGRAM = "MODEL", "COREGISTER", "BAND_NAMES", "OPTIONS", "PROGRAM"

    def createInstance(self):  # noqa: N802
        return Pansharpen()

    def name(self):
        return "pansharpen"

    def displayName(self):  # noqa: N802
        return "Pansharpen"

    def group(self):
        return "Pansharpening"

    def groupId(self):  # noqa: N802
        return "pansharpening"

    def shortHelpString(self):  # noqa: N802
        return (
            "Fuses a sharp grey image (PAN) and a coloured one (MS) into a sharp coloured GeoTIFF. "
            "Method: auto, a model or its folder, or a classical method like gsa. Shift between PAN and MS: auto, off, "
            "report, or DX,DY in PAN pixels. Further options: those of `pansharpen run`; blanks in double quotes. "
            "Program: the path of pansharpen, if it is not found by its name."
        )

    def initAlgorithm(self, configuration=None):  # noqa: N802
        self.addParameter(QgsProcessingParameterRasterLayer(self.PAN, "PAN"))
        self.addParameter(
            QgsProcessingParameterMultipleLayers(self.MS, "MS: one layer, or one a band", QgsProcessing.TypeRaster)
        )
        self.addParameter(QgsProcessingParameterString(self.MODEL, "Method", "auto"))
        for name, title, value in (
            (self.COREGISTER, "Shift between PAN and MS", "auto"),
            (self.BAND_NAMES, "Names of the MS bands, like blue,green,red,nir", ""),
            (self.OPTIONS, "Further options", ""),
            (self.PROGRAM, "Program", "pansharpen"),
        ):
            parameter = QgsProcessingParameterString(name, title, value, optional=not value)
            parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
            self.addParameter(parameter)
        self.addParameter(QgsProcessingParameterRasterDestination(self.OUTPUT, "Sharpened image"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        output = self.parameterAsOutputLayer(parameters, self.OUTPUT, context)
        command = self.command(parameters, context, output)
        feedback.pushCommandInfo(subprocess.list2cmdline(command))
        follow(command, feedback)
        return {self.OUTPUT: output}

    def command(self, parameters, context, output):
        """The command line, a word an entry."""
        pan = self.parameterAsRasterLayer(parameters, self.PAN, context)
        ms = self.parameterAsLayerList(parameters, self.MS, context)
        model, coregister, band_names, options, program = (
            self.parameterAsString(parameters, name, context).strip()
            for name in (self.MODEL, self.COREGISTER, self.BAND_NAMES, self.OPTIONS, self.PROGRAM)
        )
        command = [program, "run", pan.source(), *(layer.source() for layer in ms), "-o", output, "--overwrite"]
        command += ["--qgis-style", "--model", model, "--coregister", coregister]
        if band_names:
            command += ["--band-names", band_names]
        return command + words(options)


def words(text):
    """The words of a command line: blanks part them, but within double quotes; a backslash is one, as in paths."""
    return [word.replace('"', "") for word in re.findall(r'(?:[^\s"]|"[^"]*"?)+', text)]


def follow(command, feedback):
    """Run a command until it ends or the user cancels; what it says goes to the log.

    Raises QgsProcessingException with its last line if it fails.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OF_QGIS}
    try:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
    except OSError as error:
        raise QgsProcessingException(f"{command[0]} cannot be started ({error}); give its path as Program") from error
    said = None
    while said is None:
        try:
            said = process.communicate(timeout=SECONDS_BETWEEN_LOOKS)[0]
        except subprocess.TimeoutExpired:
            if feedback.isCanceled():
                process.terminate()  # which leaves no unfinished file
    lines = said.splitlines()
    failure = lines.pop() if process.returncode and lines else f"it ended with exit code {process.returncode}"
    for line in lines:
        feedback.pushInfo(line)
    if process.returncode:
        raise QgsProcessingException(failure)
