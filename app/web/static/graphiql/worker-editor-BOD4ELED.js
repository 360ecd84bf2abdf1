import{a}from"./chunk-WQQQ23SV.js";import"./chunk-VFYS6ERE.js";import"./chunk-L3BP23BZ.js";import"./chunk-4L5RI3VG.js";export{a as initialize};
