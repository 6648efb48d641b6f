// SPDX-License-Identifier: Apache-2.0
// NiiVue behind the few words that the page needs: an image, structures over it, a pen.
import { NVImage, Niivue, SLICE_TYPE } from './niivue.js'

const PLANES = { axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL, oblique: SLICE_TYPE.AXIAL }
// Told apart by most people with a color vision deficiency too (Okabe & Ito 2008), then repeated
// lighter.
const COLORS = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0], [204, 121, 167], [0, 114, 178],
  [255, 205, 120], [170, 220, 250], [110, 220, 185], [250, 245, 160], [245, 165, 110], [235, 185, 215], [110, 180, 225]
]

export const color = (value) => COLORS[(value - 1) % COLORS.length]

export function canShow () {
  return document.createElement('canvas').getContext('webgl2') !== null
}

export class Screen {
  constructor (canvas, moved, drew) {
    this.canvas = canvas
    this.opacity = 0.5
    this.shown = true
    this.hidden = new Set()
    this.drawing = false
    this.nv = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.37, 0.82, 0.77, 0.8],
      fontColor: [0.75, 0.8, 0.85, 1],
      crosshairWidth: 0.25,
      crosshairWidthUnit: 'percent',
      show3Dcrosshair: false,
      isRadiologicalConvention: true,
      multiplanarShowRender: 0,
      multiplanarPadPixels: 4,
      dragAndDropEnabled: false,
      loadingText: '',
      isNearestInterpolation: false,
      maxDrawUndoBitmaps: 24,
      logLevel: 'error'
    })
    this.nv.onLocationChange = (place) => moved(this.place(place))
    this.nv.onDrawingChanged = (action) => { if (action === 'draw') drew() }
  }

  async open () {
    await this.nv.attachToCanvas(this.canvas)
  }

  // Show an image, gray from one value to another, with the label map's layers that lie on it.
  async show (image, url, [low, high], layers, names) {
    this.image = image
    this.names = names
    this.hidden.clear()
    this.stopDrawing()
    await this.nv.loadVolumes([
      { url, name: 'image.nii.gz', ...(image.color ? {} : { cal_min: low, cal_max: high }) },
      ...layers.map((layer, n) => ({ url: layer, name: `labels${n}.nii.gz`, opacity: this.opacity }))
    ])
    this.paint()
    this.layout(image.shape[2] === 1 ? 'one' : 'all')
    this.nv.createOnLocationChange()
  }

  // Colors of the structures, the hidden ones without any.
  paint () {
    const map = this.colors()
    for (const volume of this.nv.volumes.slice(1)) {
      volume.setColormapLabel(map)
      volume.opacity = this.shown && !this.drawing ? this.opacity : 0
    }
    if (this.drawing) {
      this.nv.setDrawColormap(map)
      this.nv.setDrawOpacity(this.shown ? this.opacity : 0)
    } else this.nv.updateGLVolume()
  }

  colors () {
    const values = Object.keys(this.names).map(Number)
    const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [''] }
    for (const value of values) {
      const [red, green, blue] = color(value)
      map.R.push(red)
      map.G.push(green)
      map.B.push(blue)
      map.A.push(this.hidden.has(value) ? 0 : 255)
      map.I.push(value)
      map.labels.push(this.names[value])
    }
    return map
  }

  setOpacity (share) {
    this.opacity = share
    this.paint()
  }

  setVisible (value, visible) {
    if (visible) this.hidden.delete(value)
    else this.hidden.add(value)
    this.paint()
  }

  toggle () {
    this.shown = !this.shown
    this.paint()
  }

  window (low, high) {
    const [volume] = this.nv.volumes
    volume.cal_min = low
    volume.cal_max = high
    this.nv.updateGLVolume()
  }

  frame (number) {
    this.nv.setFrame4D(this.nv.volumes[0].id, number)
  }

  layout (name) {
    const one = PLANES[name === 'one' ? this.image.plane : name]
    this.nv.setSliceType(name === 'all' ? SLICE_TYPE.MULTIPLANAR : one)
  }

  // A step of slices along right (0), anterior (1) or superior (2).
  step (axis, count) {
    const by = [0, 0, 0]
    by[axis] = count
    this.nv.moveCrosshairInVox(...by)
  }

  // What is under the crosshair. The page's own numbers: NiiVue's millimeters are off for images
  // whose axes lean, and its voxels count along the axes nearest to right, anterior, superior.
  place (told) {
    const volume = this.nv.volumes[0]
    if (!volume?.permRAS || !this.image) return null
    const voxel = [0, 0, 0]
    volume.permRAS.forEach((axis, n) => {
      const at = Math.abs(axis) - 1
      const size = this.image.shape[at]
      voxel[at] = axis > 0 ? told.vox[n] : size - 1 - told.vox[n]
    })
    const mm = this.image.affine.slice(0, 3).map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3])
    const values = told.values ?? []
    const labels = values.slice(1).map((one) => this.names[Math.round(one.value)]).filter(Boolean)
    return { voxel, mm, value: values[0]?.value, labels }
  }

  async draw (url) {
    const image = await NVImage.loadFromUrl({ url, name: 'mask.nii.gz' })
    if (!this.nv.loadDrawing(image)) throw new Error('the mask does not fit its image')
    this.nv.drawAddUndoBitmap(true)
    this.drawing = true
    this.paint()
  }

  pen (value, size) {
    this.nv.opts.penSize = size
    this.nv.setPenValue(value, false)
    this.nv.setDrawingEnabled(true)
  }

  rest () {
    this.nv.setDrawingEnabled(false)
  }

  undo () {
    this.nv.drawUndo()
  }

  stopDrawing () {
    if (!this.drawing) return
    this.nv.setDrawingEnabled(false)
    this.nv.closeDrawing()
    this.drawing = false
    this.paint()
  }

  // The drawn mask as packed NIfTI, on the grid of the image as it was loaded.
  async mask () {
    const plain = await this.nv.saveImage({ filename: '', isSaveDrawing: true, volumeByIndex: 0 })
    const packed = new Blob([plain]).stream().pipeThrough(new CompressionStream('gzip'))
    return new Response(packed).blob()
  }

  close () {
    this.nv.cleanup?.()
    this.nv.gl?.getExtension('WEBGL_lose_context')?.loseContext()
  }
}
